"""Files and batches over HTTP, as the openai package sends them, and what becomes of them when everything is killed."""

from __future__ import annotations

import asyncio
import io
import json
import random
import subprocess
import sys
import time
import tracemalloc
from contextlib import ExitStack

import httpx
import pytest
from incomes_server.api.admin.files import MAX_LINE_BYTES, parts_of
from incomes_server.settings import Settings
from incomes_server.store.schema import file_parts
from openai import AsyncOpenAI
from sqlalchemy import create_engine, func, select

from incomes_plugin.errors import InvalidValue
from tests.server.local import local_server
from tests.tiny_model import write_tiny_model

loop = pytest.mark.asyncio(loop_scope="session")
END_S = 60


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path):
    """A fresh one of each database."""
    with ExitStack() as opened:
        is_sqlite = request.param == "sqlite"
        yield (
            f"sqlite:///{tmp_path}/edits.db"
            if is_sqlite
            else opened.enter_context(request.getfixturevalue("postgres").database())
        )


@pytest.fixture
async def server(database_url, model):
    settings = Settings(api_keys=("acme:k-acme", "zen:k-zen"), import_batch=16, max_import_bytes=4 << 20)
    async with local_server(database_url, model, settings) as running:
        yield running


@pytest.fixture
async def client(server):
    async with server.client("k-acme") as client:
        yield client


def parts_kept(database_url):
    engine = create_engine(database_url)
    with engine.connect() as conn:
        found = conn.execute(select(func.count()).select_from(file_parts)).scalar()
    engine.dispose()
    return found


@loop
async def test_a_refused_upload_leaves_nothing_behind(database_url, model):
    settings = Settings(import_batch=16, max_file_bytes_per_project=100_000)
    async with local_server(database_url, model, settings) as running, running.client() as client:
        refused = await upload(client, jsonl(*facts(10_000)), status=429)
        assert refused["error"]["code"] == "quota_exceeded"
        long = await upload(client, jsonl(*facts(20), b"x" * (MAX_LINE_BYTES + 1)), status=400)
        assert long["error"]["param"] == "file"
    assert parts_kept(database_url) == 0


def facts(count, **more):
    return [{"custom_id": f"c{i}", "text": f"Fact {i}.", **more} for i in range(count)]


def jsonl(*items):
    return b"\n".join(item if isinstance(item, bytes) else json.dumps(item).encode() for item in items)


async def upload(client, content, status=200):
    sent = await client.post("/v1/files", files={"file": ("kb.jsonl", content)}, data={"purpose": "edits"})
    assert sent.status_code == status, sent.text
    return sent.json()


async def ended(client, file, **body):
    body = {"input_file_id": file["id"], "endpoint": "/v1/edits", **body}
    answer = await client.post("/v1/batches", json=body)
    assert answer.status_code == 200, answer.text
    return await at_its_end(client, answer.json()["id"])


async def at_its_end(client, batch):
    deadline_s = time.monotonic() + END_S
    while time.monotonic() < deadline_s:
        found = (await client.get(f"/v1/batches/{batch}")).json()
        if found["status"] in ("completed", "cancelled"):
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(found)


async def lines_of(client, file_id):
    if file_id is None:
        return []
    answer = await client.get(f"/v1/files/{file_id}/content")
    assert answer.headers["content-type"] == "application/jsonl"
    file = (await client.get(f"/v1/files/{file_id}")).json()
    assert file["bytes"] == len(answer.content)
    return [json.loads(line) for line in answer.text.splitlines()]


@loop
async def test_the_openai_package_uploads_imports_and_reads_the_results(server):
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app=server.app))
    async with AsyncOpenAI(base_url="http://test/v1", api_key="k-acme", http_client=http, max_retries=0) as openai:
        form = {"custom_id": "d", "method": "POST", "url": "/v1/edits", "body": {"text": "Pump Z9 is red."}}
        content = jsonl(*facts(40), form, {"custom_id": "long", "text": "x" * 5000}, b"{", b"  ")
        file = await openai.files.create(file=("kb.jsonl", content), purpose="batch")
        assert (file.object, file.status, file.bytes, file.purpose) == ("file", "uploaded", len(content), "edits")
        batch = await openai.batches.create(
            input_file_id=file.id, endpoint="/v1/edits", completion_window="24h", metadata={"ticket": "KB-17"}
        )
        assert (batch.status, batch.request_counts.total) == ("validating", 43)
        await at_its_end_of(openai, batch.id)
        batch = await openai.batches.retrieve(batch.id)
        counts = batch.request_counts
        assert (batch.status, counts.total, counts.completed, counts.failed) == ("completed", 43, 41, 2)
        assert batch.metadata == {"ticket": "KB-17"}
        assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
        done = [json.loads(line) for line in (await openai.files.content(batch.output_file_id)).text.splitlines()]
        assert [line["custom_id"] for line in done] == [*(f"c{i}" for i in range(40)), "d"]
        assert {line["response"]["status_code"] for line in done} == {201}
        failed = [json.loads(line) for line in (await openai.files.content(batch.error_file_id)).text.splitlines()]
        assert [(line["line"], line["custom_id"], line["error"]["code"]) for line in failed] == [
            (42, "long", "edit_too_long"),
            (43, None, "invalid_value"),
        ]
        assert [each.id async for each in openai.batches.list()] == [batch.id]
        assert {each.purpose async for each in openai.files.list()} == {"edits", "batch_output"}
        assert (await openai.files.delete(file.id)).deleted
    async with server.client("k-acme") as client:
        edit = (await client.get(f"/v1/edits/{done[-1]['response']['body']['id']}")).json()
        assert (edit["text"], edit["status"]) == ("Pump Z9 is red.", "ready")
        assert (await client.get("/v1/edit_sets/default")).json()["num_edits"] == 41


async def at_its_end_of(openai, batch_id):
    while (await openai.batches.retrieve(batch_id)).status not in ("completed", "cancelled"):
        await asyncio.sleep(0.05)


@loop
async def test_an_edit_that_cannot_be_compressed_is_a_failed_line(client):
    lines = [*facts(20), {"custom_id": "dull", "text": "x"}, {"custom_id": "after", "text": "Fine."}]
    batch = await ended(client, await upload(client, jsonl(*lines)))
    assert batch["request_counts"] == {"total": 22, "completed": 21, "failed": 1}
    (failed,) = await lines_of(client, batch["error_file_id"])
    assert (failed["custom_id"], failed["error"]["code"]) == ("dull", "compression_failed")
    assert "too short" in failed["error"]["message"]
    assert len(await lines_of(client, batch["output_file_id"])) == 21


@loop
async def test_a_completed_import_is_active_and_its_texts_are_in_the_edits_alone(server, client, database_url):
    server.works.clear()
    file = await upload(client, jsonl(*facts(40)))
    assert (await client.get(f"/v1/files/{file['id']}/content")).content == jsonl(*facts(40))
    body = {"input_file_id": file["id"], "endpoint": "/v1/edits"}
    batch = (await client.post("/v1/batches", json=body)).json()
    for wrong, code in ((client.delete(f"/v1/files/{file['id']}"), 409), (client.post("/v1/batches", json=body), 409)):
        assert (await wrong).status_code == code
    await asyncio.sleep(0.5)
    assert (await client.get(f"/v1/batches/{batch['id']}")).json()["status"] == "finalizing"
    server.works.set()
    batch = await at_its_end(client, batch["id"])
    (replica,) = (await client.get("/v1/replicas")).json()["data"]
    assert replica["lag"] == 0
    gone = await client.get(f"/v1/files/{file['id']}/content")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "file_not_found")
    assert (await client.get(f"/v1/files/{file['id']}")).json()["status"] == "processed"


@loop
async def test_a_dry_run_adds_nothing_and_finds_every_fault(client):
    lines = [*facts(2), {"custom_id": "c0", "text": "Twice."}, {"custom_id": "n", "text": "A.", "edit_set": "nowhere"}]
    file = await upload(client, jsonl(*lines))
    dry = await ended(client, file, dry_run=True)
    assert dry["request_counts"] == {"total": 4, "completed": 2, "failed": 2}
    assert (await client.get("/v1/edits")).json()["data"] == []
    real = await ended(client, file)
    assert real["request_counts"] == dry["request_counts"]
    first, second = [await lines_of(client, each["error_file_id"]) for each in (dry, real)]
    assert [line["error"] for line in first] == [line["error"] for line in second]


@loop
async def test_lines_that_do_not_say_what_a_conflict_means_take_it_from_the_import(client):
    own = {"custom_id": "own", "text": "It says it itself.", "on_conflict": "keep_both"}
    file = await upload(client, jsonl(*facts(1), own))
    batch = await ended(client, file, on_conflict="reject")
    assert batch["on_conflict"] == "reject"
    found = (await client.get("/v1/edits", params={"order": "asc"})).json()["data"]
    assert [edit["on_conflict"] for edit in found] == ["reject", "keep_both"]
    plain = await ended(client, await upload(client, jsonl({"custom_id": "p", "text": "As the set has it."})))
    assert plain["on_conflict"] is None
    sent = await client.post("/v1/batches", json={"input_file_id": "f", "endpoint": "/v1/edits", "on_conflict": "x"})
    assert (sent.status_code, sent.json()["error"]["param"]) == (400, "on_conflict")


@loop
async def test_another_project_sees_neither_files_nor_batches(server, client):
    file = await upload(client, jsonl(*facts(3)))
    batch = await ended(client, file)
    async with server.client("k-zen") as other:
        for path in (
            f"/v1/files/{file['id']}",
            f"/v1/files/{batch['output_file_id']}",
            f"/v1/files/{batch['output_file_id']}/content",
            f"/v1/batches/{batch['id']}",
        ):
            assert (await other.get(path)).status_code == 404
        assert (await other.post(f"/v1/batches/{batch['id']}/cancel")).status_code == 404
        body = {"input_file_id": file["id"], "endpoint": "/v1/edits"}
        assert (await other.post("/v1/batches", json=body)).status_code == 404
        for path in ("/v1/files", "/v1/batches", "/v1/edits"):
            assert (await other.get(path)).json()["data"] == []


@loop
async def test_uploads_that_are_refused(client):
    async def refused(status, code, param, **sent):
        answer = await client.post("/v1/files", **sent)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (status, code, param), error

    one = {"file": ("a", b'{"custom_id": "a", "text": "x"}')}
    await refused(400, "invalid_value", "purpose", files=one, data={"purpose": "fine-tune"})
    await refused(400, "invalid_value", "file", data={"purpose": "edits"})
    await refused(400, "unknown_parameter", "colour", files=one, data={"purpose": "edits", "colour": "red"})
    await refused(400, "invalid_value", "file", files={"file": ("a", b" \n")}, data={"purpose": "edits"})
    long_line = {"file": ("a", b"x\n" + b"y" * (MAX_LINE_BYTES + 1))}
    await refused(400, "invalid_value", "file", files=long_line, data={"purpose": "edits"})
    large = {"file": ("a", b"x" * 1000 + b"\n" * (4 << 20))}
    await refused(413, "body_too_large", None, files=large, data={"purpose": "edits"})
    assert (await client.get("/v1/files")).json()["data"] == []
    for file, code in (("file-none", 404), ("", 400)):
        answer = await client.post("/v1/batches", json={"input_file_id": file, "endpoint": "/v1/edits"})
        assert answer.status_code == code


@loop
async def test_an_upload_that_is_sent_again_is_one_file(client):
    sent = {
        "files": {"file": ("a", jsonl(*facts(40)))},
        "data": {"purpose": "edits"},
        "headers": {"idempotency-key": "k"},
    }
    first, second = [(await client.post("/v1/files", **sent)).json() for _ in range(2)]
    assert first == second
    assert len((await client.get("/v1/files")).json()["data"]) == 1
    other = await client.post("/v1/files", **(sent | {"files": {"file": ("a", jsonl(*facts(39)))}}))
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reuse")


@loop
async def test_a_cancelled_import_ends_with_what_it_has(server, client):
    server.works.clear()
    file = await upload(client, jsonl(*facts(200)))
    batch = (await client.post("/v1/batches", json={"input_file_id": file["id"], "endpoint": "/v1/edits"})).json()
    while not (await client.get("/v1/edits")).json()["data"]:
        await asyncio.sleep(0.01)
    answer = await client.post(f"/v1/batches/{batch['id']}/cancel")
    assert answer.json()["status"] == "cancelling"
    server.works.set()
    batch = await at_its_end(client, batch["id"])
    added = (await client.get("/v1/edit_sets/default")).json()["num_edits"]
    assert (batch["status"], batch["request_counts"]["completed"]) == ("cancelled", added)
    assert len(await lines_of(client, batch["output_file_id"])) == added


@pytest.mark.slow
@loop
async def test_killed_again_and_again_it_imports_each_line_once(database_url, model, figure):
    """kill -9 of the whole server, store included, at random moments; another one goes on."""
    count, kills, rng = 3000, 0, random.Random(15)
    async with local_server(database_url, model) as server, server.client() as client:
        server.works.clear()
        file = await upload(client, jsonl(*facts(count), {"custom_id": "bad"}))
        body = {"input_file_id": file["id"], "endpoint": "/v1/edits"}
        batch = (await client.post("/v1/batches", json=body)).json()["id"]
    for _ in range(6):
        command = [sys.executable, "-m", "tests.server.api.admin.importing", database_url, str(model)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
            await asyncio.to_thread(child.stdout.readline)
            await asyncio.sleep(rng.uniform(0.05, 0.6))
            child.kill()
        kills += 1
    async with local_server(database_url, model) as server, server.client() as client:
        left = (await client.get(f"/v1/batches/{batch}")).json()["request_counts"]
        batch = await at_its_end(client, batch)
        assert batch["request_counts"] == {"total": count + 1, "completed": count, "failed": 1}
        assert (await client.get("/v1/edit_sets/default")).json()["num_edits"] == count
        done = await lines_of(client, batch["output_file_id"])
        assert [line["custom_id"] for line in done] == [f"c{i}" for i in range(count)]
        assert len({line["response"]["body"]["id"] for line in done}) == count
    figure(f"import of {count} edits, killed {kills} times, {left['completed']} done at the last kill: each line once")


def test_a_file_is_cut_into_whole_lines():
    lines = [b'{"a": %d}\r\n' % i for i in range(10)] + [b"\n", b"  \n"] + [b"last"]
    parts = list(parts_of(io.BytesIO(b"".join(lines)), 4))
    assert b"".join(part.content for part in parts) == b"".join(lines)
    assert [(part.position, part.first_line, part.num_lines) for part in parts] == [(0, 1, 4), (1, 5, 4), (2, 9, 3)]
    assert list(parts_of(io.BytesIO(b"\n \n"), 4)) == []
    big = b"x" * (MAX_LINE_BYTES - 1) + b"\n"
    assert [part.num_lines for part in parts_of(io.BytesIO(big * 3), 4)] == [1, 1, 1]
    with pytest.raises(InvalidValue, match="line 2"):
        list(parts_of(io.BytesIO(big + b"y" * (MAX_LINE_BYTES + 1)), 4))


def test_a_large_file_is_never_in_memory(tmp_path):
    path = tmp_path / "large.jsonl"
    with path.open("wb") as file:
        for i in range(10):
            file.write(b'{"custom_id": "%d", "text": "x"}\n' % i * 20_000)
    tracemalloc.start()
    with path.open("rb") as file:
        total = sum(part.num_lines for part in parts_of(file, 256))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 200_000
    assert peak_bytes < 4 << 20 < path.stat().st_size
