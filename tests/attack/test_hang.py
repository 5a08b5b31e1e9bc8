"""A store or a scheduler that hangs: each write is a 503 within its timeout, and a repeat of it is done once."""

import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.attack.conftest import check_refusal, note
from tests.attack.test_processes import part, ready, seconds_until

pytestmark = [pytest.mark.attack, pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray, pytest.mark.timeout(900)]

TIMEOUT_S = 3.0
DEFAULT_TIMEOUT_S = 30.0
SLACK_S = 2.5
"""A second of grace, and what a busy machine needs."""


def writes(edit, edit_set):
    """Path, body and query of each kind of write; those without `timeout_s` have the default."""
    limited, run = {"timeout_s": TIMEOUT_S}, uuid.uuid4().hex[:8]

    def line(text):
        return json.dumps({"custom_id": "a", "text": f"{text} {run}."})

    return {
        "add": ("/v1/edits", {"text": f"Added {run}."}, limited),
        "add and wait": ("/v1/edits", {"text": f"Waited for {run}."}, {**limited, "wait": "active"}),
        "replace": (f"/v1/edits/{edit}", {"text": f"Replaced {run}."}, limited),
        "retire": (f"/v1/edits/{edit}/retire", None, limited),
        "import": ("/v1/edits/import", line("Imported"), limited),
        "import and wait": ("/v1/edits/import", line("Imported and waited for"), {**limited, "wait": "active"}),
        "import into a set": ("/v1/edits/import", line("In a set"), {**limited, "edit_set": edit_set}),
        "dry import": ("/v1/edits/import", line("Dry"), {**limited, "edit_set": edit_set, "dry_run": "true"}),
        "new set": ("/v1/edit_sets", {"name": f"hung-{run}"}, {}),
    }


def send(target, path, body, query, key):
    start_s = time.monotonic()
    with target.admin() as client:
        how = {"content": body} if isinstance(body, str) else {"json": body}
        answer = client.post(path, params=query, headers={"idempotency-key": key}, **how)
    return answer, time.monotonic() - start_s


@pytest.mark.parametrize("name", ["store", "scheduler"])
def test_writes_answer_in_time(target, name):
    with target.admin() as admin:
        edit = admin.post(
            "/v1/edits", json={"text": f"Before {name}."}, params={"wait": "active", "timeout_s": 60}
        ).json()["id"]
        edit_set = admin.post("/v1/edit_sets", json={"name": f"set-{uuid.uuid4().hex[:8]}"}).json()["id"]
    asked = writes(edit, edit_set)
    if name == "scheduler":
        asked = {kind: asked[kind] for kind in ("add", "replace", "import")}
    keys = {kind: str(uuid.uuid4()) for kind in asked}
    process = part(target, name)
    process.suspend()
    try:
        with ThreadPoolExecutor(len(asked)) as pool:
            sent = {kind: pool.submit(send, target, *asked[kind], keys[kind]) for kind in asked}
            answers = {kind: future.result() for kind, future in sent.items()}
    finally:
        process.resume()
    for kind, (answer, seconds) in answers.items():
        check_refusal(answer)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready"), (kind, answer.text)
        limit_s = asked[kind][2].get("timeout_s", DEFAULT_TIMEOUT_S)
        assert seconds < limit_s + SLACK_S, (kind, seconds)
    note(attack="hang", part=name, longest_s={kind: round(seconds, 2) for kind, (_, seconds) in answers.items()})
    seconds_until(lambda: ready(target), 60)
    for kind in ("add", "import"):
        repeats = [send(target, *asked[kind][:2], {"wait": "active", "timeout_s": 60}, keys[kind])[0] for _ in range(2)]
        assert repeats[0].status_code in (200, 201), repeats[0].text
        ids = [r.json()["data"][0]["edit"] if kind == "import" else r.json()["id"] for r in repeats]
        assert ids[0] == ids[1]
    with target.admin() as admin:
        texts = [item["text"] for item in admin.get("/v1/edits", params={"limit": 100}).json()["data"]]
    assert len(texts) == len(set(texts))


def test_an_import_that_is_under_way_accounts_for_every_line(target):
    lines = [json.dumps({"custom_id": str(i), "text": f"Under way {i}."}) for i in range(2000)]
    asked = ("/v1/edits/import", "\n".join(lines))
    key, process = str(uuid.uuid4()), part(target, "store")
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(send, target, *asked, {"timeout_s": TIMEOUT_S}, key)
        with target.admin() as admin:
            seconds_until(lambda: admin.get("/v1/edits").json()["data"][0]["text"].startswith("Under way"), 30)
        process.suspend()
        try:
            answer, seconds = sent.result()
        finally:
            process.resume()
    assert answer.status_code in (200, 202), answer.text[:300]
    counts = answer.json()["request_counts"]
    assert (counts["total"], counts["completed"] + counts["failed"]) == (2000, 2000)
    assert {line["error"]["code"] for line in answer.json()["data"] if line["error"]} <= {"not_ready"}
    note(attack="hang", part="store", under="import", completed=counts["completed"], seconds=round(seconds, 2))
    seconds_until(lambda: ready(target), 60)
    again, _ = send(target, *asked, {"timeout_s": 60}, key)
    assert again.json()["request_counts"]["completed"] == 2000, again.text[:300]
    ids = [line["edit"] for line in again.json()["data"]]
    first = [line["edit"] for line in answer.json()["data"]]
    assert len(set(ids)) == 2000
    assert all(edit in (None, repeated) for edit, repeated in zip(first, ids, strict=True))
