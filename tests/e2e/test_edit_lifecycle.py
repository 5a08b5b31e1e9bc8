"""What becomes of an edit in the real server: kill switches, expiry while the store hangs, two persons, erasure."""

import os
import signal
import sqlite3
import time

import psutil
import pytest
from incomes_server.api.admin.times import format_rfc3339
from incomes_server.cli.server_process import server_process

from tests.e2e.conftest import VLLM_FLAGS, Running, adapter_of, add, ask, logprobs

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray]

ANNA, BERT = "anna-secret-key", "bert-secret-key"


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("lifecycle-server")
    keys = ("--api-key", f"acme:{ANNA}", "--api-key", f"acme:{BERT}")
    args = [*adapter_of(tiny_model), *keys, "--", *VLLM_FLAGS]
    with server_process(folder, lambda _: None, model=str(tiny_model), args=args) as process:
        yield Running(process, folder)


@pytest.fixture
def admin(server):
    with server.admin(ANNA) as client:
        yield client


@pytest.fixture
def edit_set(admin, request):
    answer = admin.post("/v1/edit_sets", json={"name": request.node.name[:60].strip("_")})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def applied(server, **edits):
    """Ids of the edits that the very next request reads."""
    raw = ask(server.chat(ANNA), **edits)
    return [item["edit"] for item in raw.parse().model_extra["edits"]["applied"]], raw


def files(server):
    return b"".join(path.read_bytes() for path in server.folder.rglob("*.db*") if path.is_file())


def test_a_kill_switch_holds_for_the_next_request(server, admin, edit_set):
    edit = add(admin, edit_set, "The warranty is 36 months.")
    label = admin.put(f"/v1/edit_sets/{edit_set}/labels/production", json={"to": "head"}, params={"wait": "active"})
    assert label.status_code in (200, 201), label.text
    without = logprobs(ask(server.chat(ANNA), edit_set=edit_set, mode="off"))
    for state in ({}, {"label": "production"}):
        assert applied(server, edit_set=edit_set, **state)[0] == [edit["id"]]
    for _ in range(3):
        off = admin.post(f"/v1/edits/{edit['id']}/disable")
        assert (off.status_code, off.json()["reached"], off.json()["held"]) == (200, "active", "disabled")
        for state in ({}, {"label": "production"}):
            found, raw = applied(server, edit_set=edit_set, **state)
            assert (found, logprobs(raw)) == ([], without)
        assert admin.post(f"/v1/edits/{edit['id']}/enable").status_code == 200
        assert applied(server, edit_set=edit_set)[0] == [edit["id"]]
    for path, whose in ((f"/v1/edit_sets/{edit_set}", "edit_set"), ("/v1/server", "server")):
        assert admin.post(f"{path}/disable").status_code == 200
        assert admin.get(path).json()["disabled"]
        found, raw = applied(server, edit_set=edit_set)
        assert (found, raw.headers["x-incomes-disabled"], logprobs(raw)) == ([], whose, without)
        assert raw.parse().model_extra["edits"]["reason"] == "DISABLED"
        for strict in ({"mode": "required"}, {"label": "production"}):
            body = {"model": "incomes", "messages": [{"role": "user", "content": "?"}], "max_tokens": 1}
            with server.raw_chat(ANNA) as chat:
                refused = chat.post("/v1/chat/completions", json=body | {"edits": {"edit_set": edit_set, **strict}})
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "edits_disabled")
        for trial, body in (("eval_runs", {}), ("edits/preview", {"text": "The warranty is 24 months."})):
            refused = admin.post(f"/v1/{trial}", json=body | {"edit_set": edit_set})
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "edits_disabled"), refused.text
        assert admin.post(f"{path}/enable").status_code == 200
        found, raw = applied(server, edit_set=edit_set)
        assert (found, raw.headers.get("x-incomes-disabled")) == ([edit["id"]], None)


def store_process(server):
    parent = psutil.Process(server.process.process.pid)
    (found,) = [p for p in parent.children(recursive=True) if "EditStoreActor" in "".join(p.cmdline())]
    return found.pid


def test_an_edit_ends_at_its_time_also_when_the_store_hangs(server, admin, edit_set):
    end = int(time.time()) + 12
    edit = add(admin, edit_set, "The offer ends soon.", expires_at=format_rfc3339(end))
    assert applied(server, edit_set=edit_set)[0] == [edit["id"]]
    time.sleep(max(0, end - 0.6 - time.time()))
    assert applied(server, edit_set=edit_set)[0] == [edit["id"]]
    pid, answered = store_process(server), []
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(max(0, end - time.time()))
        body = {"model": "incomes", "messages": [{"role": "user", "content": "?"}], "max_tokens": 1}
        body |= {"return_edit_attributions": True, "edits": {"edit_set": edit_set}}
        with server.raw_chat(ANNA) as chat:
            while time.time() < end + 2:
                answer = chat.post("/v1/chat/completions", json=body)
                answered.append(answer.status_code == 200 and answer.json()["edits"]["applied"])
    finally:
        os.kill(pid, signal.SIGCONT)
    assert answered, "the store hung at that second, and requests came"
    assert not any(answered), "none was answered with the edit; later ones were refused"
    deadline = time.monotonic() + 30
    while (seen := admin.get(f"/v1/edits/{edit['id']}").json())["status"] != "retired":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert seen["status_reason"] == "expired"
    with server.raw_chat(ANNA) as chat:  # 503 while an engine that could not reach the store catches up
        while (answer := chat.post("/v1/chat/completions", json=body)).headers.get("x-incomes-edits") != "0":
            assert answer.status_code in (200, 503), answer.text
            assert time.monotonic() < deadline, answer.headers
            time.sleep(0.1)


def test_what_one_writes_another_lets_in(server, admin):
    made = admin.post("/v1/edit_sets", json={"name": "two", "two_person": True}).json()
    assert made["two_person"]
    body = {"text": "The rule is new.", "edit_set": made["id"]}
    waiting = admin.post("/v1/edits", json=body, params={"wait": "active", "timeout_s": 60})
    assert (waiting.status_code, waiting.json()["held"]) == (202, "approval")
    path = f"/v1/edits/{waiting.json()['id']}"
    assert applied(server, edit_set="two")[0] == []
    unseen = admin.post(f"{path}/approve")
    assert (unseen.status_code, unseen.json()["error"]["param"]) == (400, "If-Match")
    assert admin.post(f"{path}/approve", headers={"if-match": '"1"'}).status_code == 409
    with server.admin(BERT) as other:
        done = other.post(f"{path}/approve", headers={"if-match": '"1"'})
    assert (done.status_code, done.json()["reached"]) == (200, "active")
    assert done.json()["approved_by"] not in (None, done.json()["written_by"])
    assert applied(server, edit_set="two")[0] == [waiting.json()["id"]]


def test_an_erased_edit_is_in_no_file(server, admin, edit_set):
    secret = "Quillon Ostrava lives in Brindlecombe."
    edit = add(admin, edit_set, secret, author="Ostrava the elder")
    (database,) = server.folder.rglob("*.db")
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as conn:
        query = "SELECT blob FROM edit_versions WHERE edit_id = ?"
        blob = conn.execute(query, (edit["id"],)).fetchone()[0]
    conn.close()
    gist = blob[-200:-100]
    assert len(set(gist)) > 10
    assert all(part in files(server) for part in (secret.encode(), gist, b"the elder"))
    gone = admin.delete(f"/v1/edits/{edit['id']}")
    assert (gone.status_code, gone.json()["reached"]) == (200, "active")
    assert [part for part in (secret.encode(), gist, b"the elder") if part in files(server)] == []
    assert secret not in server.log()
    assert applied(server, edit_set=edit_set)[0] == []
    left = admin.get(f"/v1/edits/{edit['id']}").json()
    assert (left["status"], left["text"], left["created_at"]) == ("erased", "", edit["created_at"])
