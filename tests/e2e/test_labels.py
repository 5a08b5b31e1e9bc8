"""Labels on the running server: what is answered under a label changes when the label moves, and only then."""

from __future__ import annotations

import statistics
import time

import openai
import pytest

from tests.e2e.conftest import add, ask, logprobs

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray]


def move(admin, edit_set, label, to):
    answer = admin.put(f"/v1/edit_sets/{edit_set}/labels/{label}", json={"to": to})
    assert (answer.status_code, answer.json().get("reached")) == (200, "active"), answer.text
    return answer.json()


def refused(running, **edits):
    with pytest.raises(openai.APIStatusError) as raised:
        ask(running.chat(), **edits)
    error = raised.value.response.json()["error"]
    return raised.value.status_code, error["code"], error["param"]


def test_an_answer_under_a_label_changes_with_the_label_alone(running, admin, edit_set):
    """The tiny model always picks edits, so other edits are other log-probabilities."""
    add(admin, edit_set, "The warranty is 36 months.")
    first = move(admin, edit_set, "production", "head")
    chat = running.chat()
    before = ask(chat, edit_set=edit_set, label="production")
    assert before.headers["x-incomes-label"] == "production"
    assert before.headers["x-incomes-snapshot"] == first["snapshot"]
    assert before.parse().edits["label"] == "production"

    other = add(admin, edit_set, "The warranty of everything is 12 days.")
    head = ask(chat, edit_set=edit_set)
    assert logprobs(head) != logprobs(before)
    still = ask(chat, edit_set=edit_set, label="production")
    assert logprobs(still) == logprobs(before)
    assert still.headers["x-incomes-edits"] == "1"
    assert other["id"] not in {applied["edit"] for applied in still.parse().edits["applied"]}

    move(admin, edit_set, "production", "head")
    promoted = ask(chat, edit_set=edit_set, label="production")
    assert logprobs(promoted) == logprobs(head)
    assert promoted.headers["x-incomes-snapshot"] == head.headers["x-incomes-snapshot"]

    admin.post(f"/v1/edits/{other['id']}/retire")
    assert logprobs(ask(chat, edit_set=edit_set, label="production")) == logprobs(head)
    move(admin, edit_set, "production", "1")
    assert logprobs(ask(chat, edit_set=edit_set, label="production")) == logprobs(before)


def test_a_state_that_no_replica_has_is_made_from_what_it_has(running, admin, edit_set):
    """Gists that left the newest state come back for it, and the newest state is as it was."""
    first = add(admin, edit_set, "The warranty is 36 months.")
    alone = ask(running.chat(), edit_set=edit_set)
    second = add(admin, edit_set, "The warranty of everything is 12 days.")
    admin.post(f"/v1/edits/{first['id']}/retire")
    head = ask(running.chat(), edit_set=edit_set)
    (sealed,) = [
        s for s in admin.get("/v1/snapshots", params={"edit_set": edit_set}).json()["data"] if s["version"] == 1
    ]
    status, code, param = refused(running, edit_set=edit_set, snapshot=sealed["id"])
    assert (status, code, param) == (409, "snapshot_retired", "edits.snapshot")
    move(admin, edit_set, "audit", sealed["id"])
    for named in ({"label": "audit"}, {"snapshot": sealed["id"]}):
        found = ask(running.chat(), edit_set=edit_set, **named)
        assert logprobs(found) == logprobs(alone)
        assert {a["edit"] for a in found.parse().edits["applied"]} <= {first["id"]}
    again = ask(running.chat(), edit_set=edit_set)
    assert (logprobs(again), again.headers["x-incomes-snapshot"]) == (
        logprobs(head),
        head.headers["x-incomes-snapshot"],
    )
    add(admin, edit_set, "The pump is blue.")
    assert logprobs(ask(running.chat(), edit_set=edit_set, label="audit")) == logprobs(alone)
    assert second["id"]


def test_what_is_not_at_a_label_is_refused_and_never_the_newest_state(running, admin, edit_set):
    add(admin, edit_set, "The warranty is 36 months.")
    assert refused(running, edit_set=edit_set, label="nowhere") == (404, "label_not_found", "edits.label")
    move(admin, edit_set, "production", "head")
    assert admin.delete(f"/v1/edit_sets/{edit_set}/labels/production").json()["reached"] == "active"
    assert refused(running, edit_set=edit_set, label="production") == (404, "label_not_found", "edits.label")
    both = {"label": "production", "snapshot": "snap_" + "0" * 24}
    assert refused(running, edit_set=edit_set, **both)[:2] == (400, "invalid_value")
    unknown = refused(running, edit_set=edit_set, snapshot="snap_" + "0" * 24)
    assert unknown == (404, "snapshot_not_found", "edits.snapshot")
    move(admin, edit_set, "empty", "0")
    assert ask(running.chat(), edit_set=edit_set, label="empty").headers["x-incomes-edits"] == "0"
    assert refused(running, edit_set=edit_set, label="empty", mode="required")[:2] == (409, "snapshot_empty")


def test_a_rollback_takes_less_than_two_seconds(running, admin, edit_set):
    for number in range(20):
        add(admin, edit_set, f"The warranty of pump {number} is {number} months.")
    seconds = []
    for to in ["head", "1"] * 20:
        start_s = time.monotonic()
        move(admin, edit_set, "production", to)
        seconds.append(time.monotonic() - start_s)
    assert statistics.quantiles(seconds, n=20)[-1] <= 2
