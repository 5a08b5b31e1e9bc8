"""Suites, runs and the labels that wait for them, with a real engine: the tiny model answers nonsense, repeatably."""

import pytest

from tests.e2e.conftest import ZEN, add, ask

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray]

QUESTION = "What is the warranty of pump Z9?"


def text_of(answer):
    return answer.parse().choices[0].message.content


def run_of(admin, edit_set, **body):
    answer = admin.post("/v1/eval_runs", json={"edit_set": edit_set, "max_tokens": 8, **body})
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_label_waits_for_a_run_that_passed_on_its_state(running, admin, edit_set):
    suite, label = f"/v1/edit_sets/{edit_set}/test_suite", f"/v1/edit_sets/{edit_set}/labels/production"
    add(admin, edit_set, "The warranty of pump Z9 is 24 months.")
    said = text_of(ask(running.chat(), prompt=QUESTION, edit_set=edit_set))
    given = {"questions": [{"question": QUESTION, "expected": ["never said by anyone"]}], "generated": False}
    given |= {"required": True, "least_share": 0}  # nothing that a random model says is right
    answer = admin.put(suite, json=given)
    assert answer.status_code == 200, answer.text
    refused = admin.put(label, json={"to": "head"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "eval_required")

    first = run_of(admin, edit_set)
    (result,) = first["results"]
    assert (result["answer"], result["source"], result["passed"]) == (said, "given", False)
    assert (first["status"], first["regressions"]) == ("passed", None)
    assert admin.put(label, json={"to": "head"}).status_code == 200

    add(admin, edit_set, "The warranty of pump Z9 is 36 months, says the supplier since May.")
    assert admin.put(label, json={"to": "head"}).status_code == 409, "another state needs a run of its own"
    assert admin.put(label, json={"to": first["snapshot"]}).status_code == 200, "back to what passed is always open"
    copied = run_of(admin, edit_set, to="production")
    assert (copied["snapshot"], copied["results"]) == (first["snapshot"], first["results"]), "a copy answers the same"
    assert (copied["regressions"]["previous"], copied["regressions"]["broken"]) == (first["id"], [])

    admin.put(suite, json=given | {"least_share": 1})
    failed = run_of(admin, edit_set)
    assert (failed["status"], failed["passed"], failed["total"]) == ("failed", 0, 1)
    assert "failed" in admin.put(label, json={"to": "head"}).json()["error"]["message"]
    listed = admin.get("/v1/eval_runs", params={"edit_set": edit_set}).json()["data"]
    assert [run["id"] for run in listed] == [failed["id"], copied["id"], first["id"]]
    events = admin.get("/v1/audit_events", params={"limit": 100}).json()["data"]
    assert {"set_eval_suite", "record_eval_run"} <= {event["action"] for event in events}
    with running.admin(ZEN) as other:
        assert other.get(f"/v1/eval_runs/{first['id']}").status_code == 404
        assert other.get(suite).status_code == 404
        assert other.post("/v1/eval_runs", json={"edit_set": edit_set}).status_code == 404


def test_without_given_questions_those_made_from_the_edits_are_asked(admin, edit_set):
    edit = add(admin, edit_set, "The warranty of pump Z9 is 24 months.")
    run = run_of(admin, edit_set)
    assert [(r["question"], r["expected"], r["source"]) for r in run["results"]] == [
        (QUESTION, ["24 months"], edit["id"])
    ]
    admin.put(f"/v1/edit_sets/{edit_set}/test_suite", json={"generated": False})
    nothing = admin.post("/v1/eval_runs", json={"edit_set": edit_set})
    assert (nothing.status_code, nothing.json()["error"]["code"]) == (400, "invalid_value")
