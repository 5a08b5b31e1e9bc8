"""What parsers and databases behind the server would stumble over is refused with the field's name."""

import pytest
from incomes_server.api.http.json_body import MAX_DEPTH, load_json

from incomes_plugin.errors import InvalidValue


def nested(depth):
    return b'{"a": ' + b"[" * depth + b"]" * depth + b"}"


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b'{"stop": "\\ud800"}', "stop"),
        (b'{"messages": [{"\\udfff": 1}]}', "messages"),
        (b'{"\\ud800": 1}', "body"),
        (b'["\\ud800"]', "body"),
        (b'{"top_k": 18446744073709551616}', "top_k"),
        (b'{"top_k": -9223372036854775809}', "top_k"),
        (b'{"a": ' + b"9" * 5000 + b"}", "body"),
        (b'{"temperature": 1e400}', "temperature"),
        (b'{"temperature": NaN}', "body"),
        (b'{"temperature": -Infinity}', "body"),
        (nested(MAX_DEPTH + 1), "a"),
        (nested(500), "a"),
        (nested(100_000), "body"),
        (b"[" * 100_000, "body"),
        (b'{"a": "\xff"}', "body"),
        ('{"a": 1}'.encode("utf-16"), "body"),
        (b"{", "body"),
        (b"", "body"),
    ],
)
def test_refused(raw, param):
    with pytest.raises(InvalidValue) as caught:
        load_json(raw)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'{"seed": 18446744073709551615}', {"seed": 2**64 - 1}),
        (b"[true, null, 1.5]", [True, None, 1.5]),
        (b"null", None),
    ],
)
def test_taken(raw, value):
    assert load_json(raw) == value


def test_what_is_just_not_too_deep_is_taken():
    assert load_json(nested(MAX_DEPTH))
