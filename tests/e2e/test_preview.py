"""A preview answers through the real engine and leaves nothing: no edit, no snapshot, no gist."""

import pytest

from tests.e2e.conftest import PROMPT, ZEN, add, ask

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray]


def text_of(answer):
    return answer.parse().choices[0].message.content


def test_the_answers_are_those_of_the_chat_port_before_and_after(running, admin, edit_set):
    near = add(admin, edit_set, "The colour of pump Z9 is red.")
    body = {"text": "The warranty of pump Z9 is 36 months.", "edit_set": edit_set, "questions": [PROMPT]}
    chat = running.chat()
    before = text_of(ask(chat, edit_set=edit_set))
    found = admin.post("/v1/edits/preview", json=body | {"max_tokens": 8})
    assert found.status_code == 200, found.text
    (asked,) = found.json()["questions"]
    assert (asked["question"], asked["expected"], asked["before"]) == (PROMPT, ["36 months"], before)
    assert asked["weight"] > 0, "the tiny model always picks"
    assert {neighbour["edit"] for neighbour in found.json()["neighbours"]} == {near["id"]}
    assert text_of(ask(chat, edit_set=edit_set)) == before, "nothing of it is left"
    assert len(admin.get("/v1/edits", params={"edit_set": edit_set}).json()["data"]) == 1
    add(admin, edit_set, body["text"])
    assert text_of(ask(chat, edit_set=edit_set)) == asked["after"]


def test_a_preview_of_a_replacement_is_without_what_it_replaces(running, admin, edit_set):
    old = add(admin, edit_set, "The warranty of pump Z9 is 24 months.")
    body = {"text": "The warranty of pump Z9 is 36 months.", "edit_set": edit_set, "replaces": old["id"]}
    found = admin.post("/v1/edits/preview", json=body | {"questions": [PROMPT], "max_tokens": 8}).json()
    assert found["neighbours"] == []
    replaced = admin.post(f"/v1/edits/{old['id']}", json={"text": body["text"]}, params={"wait": "active"})
    assert replaced.status_code == 200, replaced.text
    assert text_of(ask(running.chat(), edit_set=edit_set)) == found["questions"][0]["after"]


def test_others_are_not_asked_and_not_seen(running, admin, edit_set):
    mine = add(admin, edit_set, "The warranty of pump Z9 is 24 months.")
    with running.admin(ZEN) as other:
        for body in ({"edit_set": edit_set}, {"supersedes": [mine["id"]]}, {"replaces": mine["id"]}):
            answer = other.post("/v1/edits/preview", json={"text": "Pump Z9 is red.", **body})
            assert answer.status_code == 404, answer.text
