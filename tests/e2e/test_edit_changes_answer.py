"""The main promise over HTTP: an active edit shapes the next answer, only in its edit set, and retiring undoes it."""

import json

import pytest

from tests.e2e.conftest import ZEN, add, ask, logprobs

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray]


def test_add_ask_isolate_retire(running, admin, edit_set):
    client = running.chat()
    base = ask(client, mode="off")
    assert logprobs(ask(client, edit_set=edit_set)) == logprobs(base)
    edit = add(admin, edit_set, "The warranty is 36 months.")

    edited = ask(client, edit_set=edit_set)
    assert edited.headers["x-incomes-edits"] == "1"
    assert edited.headers["x-incomes-edit-set"] == edit_set
    assert logprobs(edited) != logprobs(base)
    found = edited.parse().model_extra["edits"]
    assert found["reason"] == "TARGETING_MATCH"
    assert found["snapshot"] == edited.headers["x-incomes-snapshot"]
    assert [(a["edit"], a["version"]) for a in found["applied"]] == [(edit["id"], 1)]
    assert found["applied"][0]["weight"] + found["none_weight"] == pytest.approx(1, abs=1e-4)

    assert logprobs(ask(client)) == logprobs(base)
    retired = admin.post(f"/v1/edits/{edit['id']}/retire")
    assert (retired.status_code, retired.json()["status"], retired.json()["reached"]) == (200, "retired", "active")
    after = ask(client, edit_set=edit_set)
    assert after.headers["x-incomes-edits"] == "0"
    assert logprobs(after) == logprobs(base)
    assert after.parse().model_extra["edits"]["applied"] == []


def test_replacing_changes_the_answer_in_one_step(running, admin, edit_set):
    edit = add(admin, edit_set, "The warranty is 36 months.")
    before = ask(running.chat(), edit_set=edit_set)
    answer = admin.post(f"/v1/edits/{edit['id']}", json={"text": "Zebras like chess."}, params={"wait": "active"})
    assert (answer.status_code, answer.json()["version"]) == (200, 2)
    after = ask(running.chat(), edit_set=edit_set)
    assert after.headers["x-incomes-edits"] == "1"
    assert after.parse().model_extra["edits"]["applied"][0]["version"] == 2
    assert logprobs(after) != logprobs(before)
    old = admin.get(f"/v1/edits/{edit['id']}", params={"version": 1}).json()
    assert (old["text"], old["status"]) == ("The warranty is 36 months.", "superseded")


def test_the_default_edit_set_needs_no_field(running):
    with running.admin(ZEN) as zen:
        edit = add(zen, "default", "The warranty is 36 months.")
        answer = ask(running.chat(ZEN))
        assert answer.headers["x-incomes-edits"] == "1"
        assert answer.parse().model_extra["edits"]["reason"] == "DEFAULT"
        assert ask(running.chat()).headers["x-incomes-edits"] == "0"
        zen.post(f"/v1/edits/{edit['id']}/retire")


def test_streams_carry_headers_and_attribution(running, admin, edit_set):
    edit = add(admin, edit_set, "The warranty is 36 months.")
    whole = ask(running.chat(), edit_set=edit_set).parse()
    with running.chat().chat.completions.with_streaming_response.create(
        model="incomes",
        messages=[{"role": "user", "content": "How long is the warranty?"}],
        temperature=0,
        max_tokens=8,
        stream=True,
        extra_body={"edits": {"edit_set": edit_set}, "return_edit_attributions": True},
    ) as response:
        assert response.headers["x-incomes-edits"] == "1"
        assert response.headers["x-request-id"]
        chunks = list(response.parse())
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert [c.finish_reason for c in chunks[-1].choices] == [None]
    assert chunks[-1].model_extra["edits"]["applied"][0]["edit"] == edit["id"]
    assert chunks[-1].id == chunks[0].id


def test_the_stream_helper_of_the_openai_package_keeps_edits_and_usage(running, admin, edit_set):
    edit = add(admin, edit_set, "The warranty is 36 months.")
    with running.chat().chat.completions.stream(
        model="incomes",
        messages=[{"role": "user", "content": "How long is the warranty?"}],
        temperature=0.5,
        max_tokens=8,
        n=2,
        stream_options={"include_usage": True},
        extra_body={
            "edits": {"edit_set": edit_set},
            "return_edit_attributions": True,
            "stop_token_ids": list(range(200)),  # the helper takes answers only that came to an end of their own
        },
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.usage.completion_tokens >= 2
    assert [choice.index for choice in final.choices] == [0, 1]
    assert {choice.message.edits["applied"][0]["edit"] for choice in final.choices} == {edit["id"]}


def test_each_choice_has_its_own_attribution(running, admin, edit_set):
    add(admin, edit_set, "The warranty is 36 months.")
    add(admin, edit_set, "Zebras like chess.")
    body = {"edits": {"edit_set": edit_set}, "return_edit_attributions": True}
    options = {"model": "incomes", "max_tokens": 6, "logprobs": 1, "extra_body": body}
    asked = ["The warranty is", "Zebras like"]
    alone = [running.chat().completions.create(prompt=p, temperature=0, **options).model_extra["edits"] for p in asked]
    both = running.chat().completions.create(prompt=asked, temperature=0, **options).model_extra["edits"]
    for index, one in enumerate(alone):
        found = both["choices"][index]
        assert (found["index"], found["none_weight"]) == (index, pytest.approx(one["none_weight"], abs=1e-3))
        assert {a["edit"] for a in found["applied"]} == {a["edit"] for a in one["choices"][0]["applied"]}
    twice = running.chat().completions.create(prompt=asked, temperature=1, n=2, **options).model_extra["edits"]
    assert [choice["index"] for choice in twice["choices"]] == [0, 1, 2, 3]
    for choice in twice["choices"]:
        total = choice["none_weight"] + sum(a["weight"] for a in choice["applied"])
        assert total == pytest.approx(1, abs=1e-3)
    mean = sum(choice["none_weight"] for choice in twice["choices"]) / 4
    assert twice["none_weight"] == pytest.approx(mean, abs=1e-4)


def test_what_an_aborted_request_took_is_not_kept(running, admin, edit_set):
    """Weights of a later request are the same, whatever was begun and left before."""
    add(admin, edit_set, "The warranty is 36 months.")
    first = ask(running.chat(), edit_set=edit_set).parse().model_extra["edits"]
    for _ in range(5):
        stream = running.chat().chat.completions.create(
            model="incomes",
            messages=[{"role": "user", "content": "How long is the warranty?"}],
            max_tokens=200,
            stream=True,
            extra_body={"edits": {"edit_set": edit_set}, "return_edit_attributions": True},
        )
        next(stream)
        stream.close()
    again = ask(running.chat(), edit_set=edit_set).parse().model_extra["edits"]
    assert again["choices"] == first["choices"]


def test_plain_completions(running, admin, edit_set):
    add(admin, edit_set, "The warranty is 36 months.")
    create = running.chat().completions.with_raw_response.create
    options = {"model": "incomes", "prompt": ["The warranty", "is"], "temperature": 0, "max_tokens": 6, "logprobs": 1}
    body = {"edits": {"edit_set": edit_set}, "return_edit_attributions": True}
    edited, base = create(**options, extra_body=body), create(**options)
    assert edited.headers["x-incomes-edits"] == "1"
    assert len(edited.parse().model_extra["edits"]["applied"]) == 1
    pairs = zip(edited.parse().choices, base.parse().choices, strict=True)
    assert all(a.logprobs.token_logprobs != b.logprobs.token_logprobs for a, b in pairs)


def test_a_pinned_snapshot_is_exact_or_an_error(running, admin, edit_set):
    add(admin, edit_set, "The warranty is 36 months.")
    first = ask(running.chat(), edit_set=edit_set)
    pinned = ask(running.chat(), edit_set=edit_set, snapshot=first.headers["x-incomes-snapshot"])
    assert logprobs(pinned) == logprobs(first)
    second = add(admin, edit_set, "Zebras like chess.")
    body = {
        "model": "incomes",
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 1,
        "edits": {"edit_set": edit_set, "snapshot": first.headers["x-incomes-snapshot"]},
    }
    with running.raw_chat() as client:
        answer = client.post("/v1/chat/completions", json=body)
    if answer.status_code == 200:  # still resident: then it must be exactly that snapshot
        assert answer.headers["x-incomes-edits"] == "1"
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "snapshot_retired")
    admin.post(f"/v1/edits/{second['id']}/retire")
    # Equal content has an equal id again, whatever its history.
    back = ask(running.chat(), edit_set=edit_set, snapshot=first.headers["x-incomes-snapshot"])
    assert logprobs(back) == logprobs(first)


def test_a_stream_keeps_its_snapshot(running, admin, edit_set):
    edit = add(admin, edit_set, "The warranty is 36 months.")
    options = {
        "model": "incomes",
        "messages": [{"role": "user", "content": "How long is the warranty?"}],
        "temperature": 0,
        "max_tokens": 200,
        "extra_body": {"edits": {"edit_set": edit_set}, "return_edit_attributions": True},
    }
    alone = running.chat().chat.completions.create(**options)
    stream = running.chat().chat.completions.create(**options, stream=True)
    text = next(stream).choices[0].delta.content or ""
    assert admin.post(f"/v1/edits/{edit['id']}/retire").status_code == 200
    assert ask(running.chat(), edit_set=edit_set).headers["x-incomes-edits"] == "0"
    chunks = list(stream)
    text += "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == alone.choices[0].message.content
    assert json.dumps(chunks[-1].model_extra["edits"]) == json.dumps(alone.model_extra["edits"])
