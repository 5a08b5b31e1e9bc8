"""Lists, idempotency, import and waiting on the admin port."""

import json

import pytest

from tests.e2e.conftest import add, ask

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray]


def lines(*items):
    return b"\n".join(item if isinstance(item, bytes) else json.dumps(item).encode() for item in items)


def test_pages(admin, edit_set):
    ids = [add(admin, edit_set, f"Fact number {i}.")["id"] for i in range(5)]
    seen, after, sizes = [], None, []
    while True:
        params = {"edit_set": edit_set, "limit": 2, "order": "asc"} | ({"after": after} if after else {})
        page = admin.get("/v1/edits", params=params).json()
        assert (page["object"], page["first_id"], page["last_id"]) == (
            "list",
            page["data"][0]["id"],
            page["data"][-1]["id"],
        )
        seen += [item["id"] for item in page["data"]]
        sizes.append(len(page["data"]))
        after = page["last_id"]
        if not page["has_more"]:
            break
    assert (seen, sizes) == (ids, [2, 2, 1])
    newest = admin.get("/v1/edits", params={"edit_set": edit_set, "limit": 1}).json()
    assert newest["data"][0]["id"] == ids[-1]


def test_idempotency_key(admin, edit_set):
    headers = {"idempotency-key": f"key-{edit_set}"}
    body = {"text": "The warranty is 36 months.", "edit_set": edit_set}
    first, second = (admin.post("/v1/edits", json=body, headers=headers) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    other = admin.post("/v1/edits", json=body | {"text": "Other."}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reuse")
    assert len(admin.get("/v1/edits", params={"edit_set": edit_set}).json()["data"]) == 1


def test_import_accounts_for_every_line(running, admin, edit_set):
    good = [{"custom_id": f"ok-{i}", "text": f"Fact {i}.", "external_id": f"ext-{i}"} for i in range(300)]
    bad = [b"{", {"custom_id": "long", "text": "x" * 5000}, {"custom_id": "ok-1", "text": "Twice."}, {"txt": "x"}]
    taken = {"custom_id": "taken", "text": "Same external id.", "external_id": "ext-7"}
    body = lines(*good[:150], *bad, *good[150:], taken)
    params = {"edit_set": edit_set, "wait": "active", "timeout_s": 120}
    answer = admin.post("/v1/edits/import", content=body, params=params)
    result = answer.json()
    assert answer.status_code == 200, answer.text[:500]
    assert result["request_counts"] == {"total": 305, "completed": 300, "failed": 5}
    assert len(result["data"]) == 305
    codes = {r["custom_id"]: r["error"]["code"] for r in result["data"] if r["error"]}
    assert codes["long"] == "edit_too_long"
    assert codes["taken"] == "edit_conflict"
    assert result["data"][150]["error"]["code"] == "invalid_value"
    assert {r["status"] for r in result["data"] if not r["error"]} == {"ready"}
    assert ask(running.chat(), edit_set=edit_set).headers["x-incomes-edits"] == "300"
    again = admin.post("/v1/edits/import", content=lines(*good[:3]), params={**params, "dry_run": True}).json()
    assert again["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
    elsewhere = lines(*good[:1], {"custom_id": "x", "text": "A.", "edit_set": "nowhere"})
    checked = admin.post("/v1/edits/import", content=elsewhere, params={**params, "dry_run": True}).json()
    assert [line["error"] and line["error"]["code"] for line in checked["data"]] == [None, "edit_set_not_found"]
    unknown = admin.post("/v1/edits/import", content=lines(good[0]), params={"edit_set": "nowhere", "dry_run": True})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "edit_set_not_found")
    assert admin.get(f"/v1/edit_sets/{edit_set}").json()["num_edits"] == 300


def test_deleting_a_set_takes_its_edits_out_at_once(running, admin, edit_set):
    add(admin, edit_set, "The warranty is 36 months.")
    assert ask(running.chat(), edit_set=edit_set).headers["x-incomes-edits"] == "1"
    answer = admin.delete(f"/v1/edit_sets/{edit_set}")
    assert (answer.status_code, answer.json()["deleted"], answer.json()["reached"]) == (200, True, "active")
    with running.raw_chat() as client:
        body = {"model": "incomes", "messages": [{"role": "user", "content": "hi"}], "edits": {"edit_set": edit_set}}
        assert client.post("/v1/chat/completions", json=body).json()["error"]["code"] == "edit_set_not_found"


def test_replicas(admin, edit_set):
    add(admin, edit_set, "The warranty is 36 months.")
    (replica,) = admin.get("/v1/replicas").json()["data"]
    assert replica["serving"] is True
    assert replica["positions"][edit_set] == 1
    assert replica["nacks"] == {}


def test_metadata_and_names(admin, edit_set):
    edit = add(admin, edit_set, "The warranty is 36 months.", external_id="kb-17", metadata={"ticket": "KB-17"})
    read = admin.get(f"/v1/edits/{edit['id']}").json()
    assert (read["external_id"], read["metadata"], read["text"]) == (
        "kb-17",
        {"ticket": "KB-17"},
        "The warranty is 36 months.",
    )
    name = admin.get(f"/v1/edit_sets/{edit_set}").json()["name"]
    assert admin.get(f"/v1/edit_sets/{name}").json()["id"] == edit_set
    taken = admin.post("/v1/edit_sets", json={"name": name})
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "edit_set_exists")


def test_metrics_count_edits_and_hold_no_id(running, admin, edit_set):
    edit = add(admin, edit_set, "The warranty is 36 months.")
    ask(running.chat(), edit_set=edit_set)
    text = admin.get("/metrics").text
    assert 'incomes:generations_total{reason="TARGETING_MATCH",refused=""}' in text
    assert "incomes:ready 1.0" in text
    assert 'incomes:edits{status="ready"}' in text
    assert float(text.split("incomes:activation_seconds_count ")[1].split()[0]) >= 1
    assert edit["id"] not in text
    assert edit_set not in text
