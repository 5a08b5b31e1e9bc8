"""Times that callers give are RFC 3339, and nothing else is taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from incomes_server.api.admin.times import GivenTime, ShownTime, format_rfc3339, parse_rfc3339
from pydantic import BaseModel, ConfigDict, ValidationError


class Body(BaseModel):
    model_config = ConfigDict(strict=True)

    at: GivenTime | None = None


class Answer(BaseModel):
    at: ShownTime | None


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-11-29T17:20:00Z", 1795972800),
        ("2026-11-29T18:20:00+01:00", 1795972800),
        ("2026-11-29t17:20:00.000z", 1795972800),
        ("2028-02-29T00:00:00-00:00", 1835395200),
    ],
)
def test_a_time_with_its_offset(given, seconds):
    assert Body(at=given).at == seconds
    assert Answer(at=seconds).model_dump_json() == f'{{"at":"{format_rfc3339(seconds)}"}}'


@pytest.mark.parametrize(
    "given",
    [
        1795972800, 1795972800.5, True, "1795972800", "2026-11-29", "2026-11-29T17:20:00", "2026-11-29 17:20:00Z",
        "2026-11-29T17:20Z", "2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-11-29T24:00:00Z",
        "2026-11-29T17:20:60Z", "2026-11-29T17:20:00.5Z", "2026-11-29T17:20:00+25:00", "0000-01-01T00:00:00Z",
        "tomorrow", "", " 2026-11-29T17:20:00Z", "2026-11-29T17:20:00Z\n", "٢٠٢٦-11-29T17:20:00Z",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(given):
    with pytest.raises(ValidationError):
        Body(at=given)


@given(st.integers(-62135596800, 253402300799))
def test_there_and_back(seconds):
    assert parse_rfc3339(format_rfc3339(seconds)) == seconds


@given(st.text(max_size=30))
def test_no_text_raises_anything_but_a_value_error(text):
    try:
        parse_rfc3339(text)
    except ValueError:
        return
    assert format_rfc3339(parse_rfc3339(text))


def test_absent_stays_absent():
    assert Body.model_validate_json("{}").at is None
    assert Answer(at=None).model_dump_json() == '{"at":null}'
    assert Body.model_json_schema()["properties"]["at"]["anyOf"][0] == {"type": "string", "format": "date-time"}
