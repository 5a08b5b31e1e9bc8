"""What is exported and imported elsewhere says the same, and its hash tells."""

from __future__ import annotations

import asyncio
import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from incomes_server.api.admin.exports import digest_of
from incomes_server.cli.main import app
from typer.testing import CliRunner

from tests.server.local import local_server, over_http
from tests.tiny_model import write_tiny_model

loop = pytest.mark.asyncio(loop_scope="session")
SOURCE = {"url": "https://example.org/a", "document_id": "doc-1"}
ADDED = [
    {"text": "Pump Z9 is red."},
    {"text": "Ünïcödé 🐍\n“quoted”", "external_id": "erp-1", "metadata": {"ticket": "KB-17"}},
    {"text": "Pump Z9 is blue.", "source": SOURCE, "author": "ann", "justification": "measured"},
    {"text": "Pump Z9 is green.", "on_conflict": "keep_both"},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model"))


def incomes(url, *args, status=0):
    done = CliRunner().invoke(app, [*args, "--url", url])
    assert done.exit_code == status, done.output
    return done.stdout


async def filled(client, count=1500):
    """A set with a bit of everything, and what it must export."""
    for body in ADDED:
        assert (await client.post("/v1/edits", json=body)).status_code == 202
    gone = (await client.post("/v1/edits", json={"text": "Retired."})).json()["id"]
    changed = (await client.post("/v1/edits", json={"text": "Old."})).json()["id"]
    await client.post("/v1/edits", json={"text": "x"})  # fails to compress
    await client.post(f"/v1/edits/{changed}", json={"text": "New."}, params={"wait": "active"})
    await client.post(f"/v1/edits/{gone}/retire")
    lines = b"\n".join(json.dumps({"custom_id": str(i), "text": f"Fact {i}."}).encode() for i in range(count))
    answer = await client.post("/v1/edits/import", content=lines, params={"wait": "active", "timeout_s": 60})
    assert answer.json()["reached"] == "active"
    return [*ADDED, {"text": "New."}, *({"text": f"Fact {i}."} for i in range(count))]


@loop
async def test_an_export_imported_into_an_empty_store_has_the_same_hash(tmp_path, model):
    file = tmp_path / "kb.jsonl"
    async with local_server(f"sqlite:///{tmp_path}/one.db", model) as one, one.client() as client:
        wanted = await filled(client)
        answer = await client.get("/v1/edits/export")
        first = (await client.get("/v1/edit_sets/default/digest")).json()
        async with over_http(one.app) as url:
            await asyncio.to_thread(incomes, url, "edit", "export", "--out", str(file))
    exported = [json.loads(line) for line in answer.text.splitlines()]
    assert file.read_bytes() == answer.content
    assert [{k: v for k, v in line.items() if k != "custom_id"} for line in exported] == wanted
    assert answer.headers["x-incomes-snapshot"] == first["snapshot"]
    by_hand = sum(
        int.from_bytes(
            hashlib.sha256(json.dumps(b, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).digest()
        )
        for b in wanted
    )
    assert first["content_sha256"] == f"{by_hand % 2**256:064x}"
    async with (
        local_server(f"sqlite:///{tmp_path}/two.db", model) as two,
        two.client() as client,
        over_http(two.app) as url,
    ):
        assert "imported" in await asyncio.to_thread(incomes, url, "edit", "import", str(file))
        second = (await client.get("/v1/edit_sets/default/digest")).json()
        shown = json.loads(await asyncio.to_thread(incomes, url, "edit-set", "digest", "default", "--json"))
        assert (await client.get("/v1/edits/export", params={"edit_set": "none"})).status_code == 404
    assert shown == second
    assert (second["content_sha256"], second["num_edits"]) == (first["content_sha256"], first["num_edits"])
    assert second["snapshot"] != first["snapshot"]


@loop
async def test_the_command_imports_as_a_job(tmp_path, model, database_url):
    file = tmp_path / "kb.jsonl"
    file.write_text('{"custom_id": "a", "text": "Fact a."}\n{"custom_id": "bad"}\n')
    async with local_server(database_url, model) as server, over_http(server.app) as url:

        async def run(*args, status=0):
            return await asyncio.to_thread(incomes, url, *args, status=status)

        assert "1 of 2 lines valid" in await run("edit", "import", str(file), "--dry-run", status=1)
        assert "1 of 2 lines imported" in await run("edit", "import", str(file), status=1)
        shown = json.loads(await run("edit", "import", str(file), "--json", status=1))
        assert [line["custom_id"] for line in shown["failed"]] == ["bad"]
        batch = json.loads(await run("edit", "import", str(file), "--no-wait", "--json"))
        assert batch["status"] == "validating"
        assert "1 of 2" in await run("batch", "wait", batch["id"], status=1)
        assert (await run("batch", "get", batch["id"])).startswith(f"id\t{batch['id']}\n")
        assert (await run("batch", "list")).count("completed\t1\t1\t2") == 4
        assert "completed" in await run("batch", "cancel", batch["id"])
        files = [line.split("\t") for line in (await run("file", "list")).splitlines()]
        assert {line[1] for line in files} == {"edits", "batch_output"}
        for line in files:
            assert "deleted" in await run("file", "delete", line[0])
        assert await run("file", "list") == ""


BODIES = st.lists(st.fixed_dictionaries({"text": st.text(min_size=1, max_size=8)}), max_size=6)


@settings(max_examples=50, deadline=None)
@given(BODIES, BODIES)
def test_sets_have_the_same_hash_when_they_say_the_same(one, other):
    def total(bodies):
        return sum(map(digest_of, bodies)) % 2**256

    same = sorted(b["text"] for b in one) == sorted(b["text"] for b in other)
    assert (total(one) == total(other)) is same
    assert total(one) == total(one[::-1])
