"""Every line of an import comes out, right or wrong."""

import json

import pytest
from incomes_server.api.admin.import_lines import parse_lines
from incomes_server.api.admin.tokens import EditTokenizer

from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = write_tiny_model(tmp_path_factory.mktemp("tiny"))
    return EditTokenizer(folder, 40)


def parse(tokenizer, *lines):
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    return list(parse_lines(raw, tokenizer))


def test_both_forms(tokenizer):
    short = {"custom_id": "a", "text": "One.", "edit_set": "s", "metadata": {"k": "v"}}
    batch = {"custom_id": "b", "method": "POST", "url": "/v1/edits", "body": {"text": "Two."}}
    first, second = parse(tokenizer, short, b"  ", batch)
    assert (first.number, first.custom_id, first.edit_set, first.edit.metadata) == (1, "a", "s", {"k": "v"})
    assert (second.number, second.custom_id, second.edit.text) == (3, "b", "Two.")
    assert len(first.edit.token_ids) == 4


@pytest.mark.parametrize(
    ("line", "code", "custom_id"),
    [
        (b"{", "invalid_value", None),
        (b"[1]", "invalid_value", None),
        ({"custom_id": "a"}, "invalid_value", "a"),
        ({"text": "One."}, "invalid_value", None),
        ({"custom_id": "a", "text": "One.\0"}, "invalid_value", "a"),
        ({"custom_id": "a\0", "text": "One."}, "invalid_value", "a"),
        ({"custom_id": "a", "text": "One.", "metadata": {"k": "\0"}}, "invalid_value", "a"),
        ({"custom_id": "a", "text": "One.", "metadata": {"\0": "v"}}, "invalid_value", "a"),
        ({"custom_id": "a", "method": "POST", "url": "/v1/edits", "body": {"text": "\0"}}, "invalid_value", "a"),
        ({"custom_id": "a", "text": "  "}, "invalid_value", "a"),
        ({"custom_id": "a", "txt": "One."}, "unknown_parameter", "a"),
        ({"custom_id": "a", "text": "x" * 41}, "edit_too_long", "a"),
        (b'{"custom_id": "a", "text": ' + b"[" * 3000 + b"]" * 3000 + b"}", "invalid_value", None),
        (b'{"custom_id": "\\ud800", "text": "x"}', "invalid_value", None),
        (b'{"custom_id": "a", "text": "\\ud800"}', "invalid_value", None),
        (b'{"custom_id": "a", "\\ud800": 1}', "invalid_value", None),
        (b'{"custom_id": "a", "text": ' + b"9" * 5000 + b"}", "invalid_value", None),
        ({"custom_id": "a", "method": "PUT", "url": "/v1/edits", "body": {"text": "x"}}, "invalid_value", "a"),
    ],
)
def test_wrong_lines(tokenizer, line, code, custom_id):
    (found,) = parse(tokenizer, line)
    assert (found.error.code, found.custom_id, found.edit) == (code, custom_id, None)


def test_custom_id_twice(tokenizer):
    first, second = parse(tokenizer, {"custom_id": "a", "text": "One."}, {"custom_id": "a", "text": "Two."})
    assert first.error is None
    assert second.error.param == "custom_id"


def test_too_long_names_limit_and_count(tokenizer):
    (line,) = parse(tokenizer, {"custom_id": "a", "text": "x" * 50})
    assert "50 tokens" in line.error.message
    assert "at most 40" in line.error.message
