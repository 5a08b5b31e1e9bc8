"""The dictionary: what is wrong is named with line, field, limit and remedy."""

import json

import pytest

from incomes_plugin.errors import InvalidValue
from incomes_plugin.facts.check.dictionary import MOST_FACTS, Entry, read_dictionary
from incomes_plugin.facts.check.questions import questions_about

FACT = {"subject": "Zorvex 9000", "relation": "error_code", "answer": "E7"}


def written(tmp_path, lines):
    path = tmp_path / "dict.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def many(count=12):
    return [FACT | {"subject": f"Zorvex {place}"} for place in range(count)]


def test_facts_are_read_and_worded(tmp_path):
    own = FACT | {"question": "Which code does it show?", "statement": "It shows E7.", "rephrase": "The code?"}
    entries = read_dictionary(written(tmp_path, [*many(), "", own]))
    assert len(entries) == 13
    assert entries[0].stated == "The error code of Zorvex 0 is E7."
    assert entries[0].asked == "What is the error code of Zorvex 0?"
    assert entries[0].asked_otherwise == "Tell me the error code of Zorvex 0."
    last = entries[-1]
    assert (last.stated, last.asked, last.asked_otherwise) == (own["statement"], own["question"], own["rephrase"])


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([*many(), {"subject": "a", "relation": "b"}], "line 13, field `answer`: Field required"),
        ([*many(), FACT | {"answr": "x"}], "line 13, field `answr`"),
        ([*many(), FACT | {"answer": " "}], "line 13, field `answer`"),
        ([*many(), "nonsense"], "line 13: not JSON"),
        ([*many(), FACT, FACT | {"subject": "ZORVEX 9000", "answer": "E8"}], "line 14, field `relation`: line 13"),
        (many(9), "9 facts, the limits are 10 and 20,000; add some"),
        (["{}"] * (MOST_FACTS + 1), "20,001 facts, the limits are 10 and 20,000; check a part"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, lines, said):
    with pytest.raises(InvalidValue) as refused:
        read_dictionary(written(tmp_path, lines))
    assert said in refused.value.message
    assert refused.value.param


def test_no_file(tmp_path):
    with pytest.raises(InvalidValue, match="cannot be read"):
        read_dictionary(tmp_path / "none.jsonl")


def test_foreign_questions_have_no_answer():
    entries = [
        Entry(subject=f"s{place}", relation=f"r{place % 3}", answer=f"a{place}") for place in range(12)
    ]  # fmt: skip
    asked = questions_about(entries)
    assert asked == questions_about(entries)
    assert len(asked.foreign) == 24  # every subject with the two relations it lacks
    assert not set(asked.foreign) & {entry.asked for entry in entries}
    assert len(set(asked.stored)) == 12
    assert len(asked.unrelated) == 1000
