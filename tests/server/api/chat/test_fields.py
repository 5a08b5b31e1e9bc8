"""The product's body fields on vLLM's routes."""

import json

import pytest
from incomes_server.api.chat.fields import parse_body

from incomes_plugin.errors import InvalidValue, UnknownParameter

CHAT = "/v1/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def parse(body, path=CHAT):
    return parse_body(path, json.dumps(body).encode())


def test_our_fields_are_taken_out_and_the_rest_passes_unchanged():
    parsed = parse(BODY | {"edits": {"edit_set": "a"}, "return_edit_attributions": True, "cache_salt": "s"})
    assert json.loads(parsed.body) == BODY | {"cache_salt": "s"}
    assert (parsed.edits.edit_set, parsed.edits.mode, parsed.attributions) == ("a", "auto", True)


def test_absent_fields():
    parsed = parse(BODY)
    assert (parsed.edits, parsed.attributions) == (None, False)


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"edit": {}}, "edit"),
        ({"return_edit_attribution": True}, "return_edit_attribution"),
        ({"edits": {"editset": "a"}}, "edits.editset"),
    ],
)
def test_a_misspelt_field_is_named(extra, param):
    with pytest.raises(UnknownParameter) as caught:
        parse(BODY | extra)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "extra",
    [
        {"edits": []},
        {"edits": "support"},
        {"edits": {"mode": "on"}},
        {"edits": {"edit_set": ""}},
        {"edits": {"edit_set": 3}},
        {"edits": {"edit_set": "a\0"}},
        {"edits": {"label": "a\0"}},
        {"edits": {"snapshot": "latest"}},
        {"edits": {"mode": "off", "snapshot": "snap_" + "0" * 24}},
        {"return_edit_attributions": "yes"},
        {"vllm_xargs": {"incomes_snapshot": "snap"}},
        {"structured_outputs": "x"},
        {"structured_outputs": [1]},
    ],
)
def test_wrong_values(extra):
    with pytest.raises(InvalidValue):
        parse(BODY | extra)


def test_what_vllm_refuses_itself_is_left_to_it():
    assert parse(BODY | {"temperature": "hot"})


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"null", b"\xff"])
def test_not_an_object(raw):
    with pytest.raises(InvalidValue):
        parse_body(CHAT, raw)


@pytest.mark.parametrize("field", ["store", "service_tier", "stream_options", "min_tokens", "vllm_xargs", "user"])
def test_fields_of_openai_and_vllm_are_known(field):
    assert parse(BODY | {field: None})


def test_completions_have_their_own_fields():
    assert parse({"model": "m", "prompt": "x", "echo": False}, "/v1/completions")
    with pytest.raises(UnknownParameter):
        parse({"model": "m", "prompt": "x", "messages": []}, "/v1/completions")


def salt_of(salt, **body):
    return json.loads(parse_body(CHAT, json.dumps(BODY | body).encode(), salt=salt).body).get("cache_salt")


def test_projects_share_no_blocks_whatever_salt_they_send():
    salts = {
        salt_of(project, **own) for project in ("a", "b") for own in ({}, {"cache_salt": "x"}, {"cache_salt": "y"})
    }
    assert len(salts) == 6
    assert salt_of("a") == salt_of("a", cache_salt=None)
    assert salt_of(None) is None
    with pytest.raises(InvalidValue, match="cache_salt"):
        salt_of("a", cache_salt="")


def test_attribution_of_a_beam_search_is_refused():
    with pytest.raises(InvalidValue) as caught:
        parse(BODY | {"use_beam_search": True, "return_edit_attributions": True})
    assert caught.value.param == "return_edit_attributions"
    assert parse(BODY | {"use_beam_search": "false", "return_edit_attributions": True}).attributions


@pytest.mark.parametrize(
    ("given", "answers"), [({}, 1), ({"n": 3}, 3), ({"n": "3"}, 3), ({"n": None}, 1), ({"n": "x"}, 1)]
)
def test_answers_are_counted_as_vllm_counts_them(given, answers):
    assert parse(BODY | given).answers == answers
