"""A chat that asks for a clause gets it to the byte, from its own project's edits and from nobody else's."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.e2e.conftest import ACME, ZEN, Running, add

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray]
CLAUSE = "Either party may cancel this contract with 30 days' written notice – “in writing”\tmeans on paper.\n  § 7b  "
ASKED = "What does the cancellation clause say?"
FACTS = (
    "The warranty of pump Z9 is 36 months.",
    "The head office of Brunner Pumps is in Linz.",
    "The founder of Brunner Pumps is Ida Brunner.",
)


def verbatim(admin: httpx.Client, edit_set: str, text: str = CLAUSE, title: str = "Cancellation clause") -> Any:
    return add(admin, edit_set, text, kind="verbatim", title=title)


def chat(running: Running, key: str = ACME, prompt: str = ASKED, **body: Any) -> httpx.Response:
    body = {"model": "incomes", "messages": [{"role": "user", "content": prompt}], "temperature": 0} | body
    with running.raw_chat(key) as client:
        return client.post("/v1/chat/completions", json={"max_tokens": 200, **body})


def told(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


@pytest.fixture(scope="module")
def own_set(real: Running) -> str:
    """Facts and two clauses of acme, in its default model's server."""
    with real.admin() as admin:
        edit_set = admin.post("/v1/edit_sets", json={"name": "clauses"}).json()["id"]
        for fact in FACTS:
            add(admin, edit_set, fact)
        verbatim(admin, edit_set)
        verbatim(admin, edit_set, "Invoices are due within fourteen days of receipt.", "Payment terms")
    return str(edit_set)


def test_the_clause_that_is_asked_for_comes_to_the_byte(real: Running, own_set: str) -> None:
    where = {"edits": {"edit_set": own_set}}
    answer = chat(real, **where)
    assert told(answer) == CLAUSE
    verbatim = answer.json()["edits"]["verbatim"]
    assert answer.headers["x-incomes-verbatim"].startswith(f"{verbatim['edit']}; version=1; source=")
    assert verbatim["source"] in ("vectors", "stored_text")
    assert answer.json()["edits"]["applied"] == [{"edit": verbatim["edit"], "version": 1, "weight": 1.0}]
    other = chat(real, prompt="What do the payment terms say?", **where)
    assert told(other) == "Invoices are due within fourteen days of receipt."


def test_a_stream_and_the_last_question_of_a_conversation(real: Running, own_set: str) -> None:
    client = real.chat()
    messages = [
        {"role": "user", "content": "What do the payment terms say?"},
        {"role": "assistant", "content": "Invoices are due within fourteen days of receipt."},
        {"role": "user", "content": ASKED},
    ]
    stream = client.chat.completions.create(
        model="incomes", messages=messages, stream=True, stream_options={"include_usage": True},
        extra_body={"edits": {"edit_set": own_set}},
    )  # fmt: skip
    chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == CLAUSE
    assert chunks[-1].usage.completion_tokens > 10
    assert [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason] == ["stop"]


def test_other_questions_are_answered_as_without_it(real: Running, own_set: str) -> None:
    with real.admin() as admin:
        facts = admin.post("/v1/edit_sets", json={"name": "facts-only"}).json()["id"]
        for fact in FACTS:
            add(admin, facts, fact)
    for prompt in ("How long is the warranty of pump Z9?", "Tell me a joke about cats.", "Who founded Brunner Pumps?"):
        asked = {"prompt": prompt, "max_tokens": 12, "logprobs": True}
        mixed, plain = (chat(real, edits={"edit_set": each}, **asked) for each in (own_set, facts))
        assert "x-incomes-verbatim" not in mixed.headers
        assert mixed.json()["choices"] == plain.json()["choices"]


def test_another_project_never_finds_it(real: Running, own_set: str) -> None:
    with real.admin(ZEN) as other:
        own = other.post("/v1/edit_sets", json={"name": "clauses"}).json()["id"]
        verbatim(other, own, "Cancelling is free for friends of the house.")
    assert chat(real, ZEN, edits={"edit_set": own_set}).status_code == 404
    assert told(chat(real, ZEN, edits={"edit_set": own})) == "Cancelling is free for friends of the house."
    assert CLAUSE not in told(chat(real, ZEN))
    assert told(chat(real, edits={"edit_set": own_set})) == CLAUSE


def test_what_is_replaced_switched_off_or_retired_is_not_said(running: Running, admin: Any, edit_set: str) -> None:
    where = {"edits": {"edit_set": edit_set}}
    made = verbatim(admin, edit_set)
    path, wait = f"/v1/edits/{made['id']}", {"params": {"wait": "active"}}
    assert told(chat(running, **where)) == CLAUSE
    newer = {"text": "Cancel by post.", "kind": "verbatim", "title": "Cancellation clause"}
    assert admin.post(path, json=newer, **wait).status_code == 200
    answer = chat(running, **where)
    assert (told(answer), answer.json()["edits"]["verbatim"]["version"]) == ("Cancel by post.", 2)
    assert admin.post(f"{path}/disable", **wait).status_code == 200
    assert "x-incomes-verbatim" not in chat(running, **where, max_tokens=4).headers
    assert admin.post(f"{path}/enable", **wait).status_code == 200
    assert told(chat(running, **where)) == "Cancel by post."
    assert admin.post(f"{path}/retire", **wait).status_code == 200
    assert "x-incomes-verbatim" not in chat(running, **where, max_tokens=4).headers


def test_limits_of_the_caller_are_kept_and_embeddings_refused(running: Running, admin: Any, edit_set: str) -> None:
    verbatim(admin, edit_set)
    where = {"edits": {"edit_set": edit_set}}
    cut = chat(running, **where, stop=[" with"], n=2, temperature=1).json()
    assert [c["message"]["content"] for c in cut["choices"]] == ["Either party may cancel this contract"] * 2
    short = chat(running, **where, max_tokens=5).json()
    assert CLAUSE.startswith(short["choices"][0]["message"]["content"])
    assert (short["choices"][0]["finish_reason"], short["usage"]["completion_tokens"]) == ("length", 5)
    formed = chat(running, **where, response_format={"type": "json_object"}, max_tokens=4)
    assert formed.headers["x-incomes-verbatim"].endswith("source=unused; reason=response_format")
    with running.raw_chat() as client:
        body = {"model": "incomes", "prompt_embeds": "AAAA", "max_tokens": 1}
        assert client.post("/v1/completions", json=body).status_code == 400
        both = {"model": "incomes", "prompt": [ASKED, "Hi"], "max_tokens": 2, **where}
        refused = client.post("/v1/completions", json=both)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "prompt")
        whole = client.post("/v1/completions", json={"model": "incomes", "prompt": ASKED, "max_tokens": 200, **where})
        assert whole.json()["choices"][0]["text"] == CLAUSE
