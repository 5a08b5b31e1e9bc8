"""Vectors and cuts are planned from what a text tells the model."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.verbatim.planner import VectorCapacity, cuts
from incomes_plugin.lab.verbatim.run import plan
from incomes_plugin.lab.verbatim.targets import read_texts, text_of, tokens_of


def test_the_formula():
    calibration = VectorCapacity(100.0, {1: 1.0, 4: 0.5}, rho=0.5)
    assert [calibration.vectors(nats) for nats in (1, 50, 51, 75, 100, 101)] == [1, 1, 2, 2, 4, 5]
    assert calibration.nats(2) == pytest.approx(100 * 2 * 0.75)
    assert calibration.nats(8) == pytest.approx(100 * 8 * 0.5)


@given(st.lists(st.floats(0, 20), min_size=1, max_size=80), st.floats(1, 60), st.integers(1, 30))
def test_chunks_cover_the_text_within_their_limits(surprisal, most_nats, most_tokens):
    ends = cuts(surprisal, most_nats, most_tokens)
    assert ends == sorted(set(ends))
    assert ends[-1] == len(surprisal)
    for begin, end in zip([0, *ends], ends, strict=False):
        assert 1 <= end - begin <= most_tokens
        assert end - begin == 1 or sum(surprisal[begin : end - 1]) <= most_nats + 1e-9


def test_a_cut_is_in_front_of_a_surprise():
    assert cuts([1.0] * 14 + [9.0] + [1.0] * 20, most_nats=24.0) == [14, 30, 35]


def test_plans_of_real_texts(model):
    calibration = VectorCapacity(nats_per_vector=8.0, rho=1.0)
    short = plan(model, "a", "abcdefgh", calibration)
    assert short.chunks[0].ids == tokens_of(model.tokenizer, "abcdefgh")
    assert sum(short.nats) == pytest.approx(float(model.surprisal(short.chunks[0].ids).sum()))
    long = plan(model, "b", "pumps and valves " * 8, calibration)
    ids = [token for chunk in long.chunks for token in chunk.ids]
    assert len(long.chunks) > 1
    assert text_of(model.tokenizer, ids) == long.text
    assert [chunk.name for chunk in long.chunks][:2] == ["b/0", "b/1"]


def test_what_vectors_would_not_shorten_is_refused(model):
    assert "the text in the prompt is not longer" in plan(model, "a", "pump", VectorCapacity(1.0)).refusal


@pytest.mark.parametrize("text", ["", "a<eos>b", "<|im_start|>"])
def test_texts_that_cannot_come_back(model, text):
    with pytest.raises(InvalidValue, match="clause"):
        tokens_of(model.tokenizer, text, "clause")
    assert plan(model, "clause", text, VectorCapacity(8.0)).refusal


def test_texts_are_not_normalised(model):
    for text in ("Zo\u0308e", "Zöe", " two  spaces ,\n\ttab\r\n"):
        assert text_of(model.tokenizer, tokens_of(model.tokenizer, text)) == text


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"texts": 1}', '{"text": 7}'])
def test_files_of_something_else(tmp_path, line):
    file = tmp_path / "mine.jsonl"
    file.write_text('{"text": "good"}\n' + line + "\n")
    with pytest.raises(InvalidValue, match="line 2"):
        read_texts(file)
    file.write_text("")
    with pytest.raises(InvalidValue, match="no texts"):
        read_texts(file)
    with pytest.raises(InvalidValue, match="no file"):
        read_texts(tmp_path / "absent")


def test_a_calibration_belongs_to_its_model(tmp_path):
    file = tmp_path / "capacity.json"
    document = {"origin": {"model": "vf_1"}, "calibration": {"nats_per_vector": 20.0, "efficiency": {"1": 1.0}}}
    file.write_text(json.dumps(document))
    assert VectorCapacity.read(file, "vf_1", 0.4) == VectorCapacity(20.0, {1: 1.0}, 0.4)
    with pytest.raises(InvalidValue, match="measured with the model vf_1"):
        VectorCapacity.read(file, "vf_2", 0.4)
    file.write_text(json.dumps(document | {"calibration": None}))
    with pytest.raises(InvalidValue, match="incomes capacity"):
        VectorCapacity.read(file, "vf_1", 0.4)


@pytest.mark.parametrize(
    ("nats", "efficiency", "rho"), [(0, {1: 1.0}, 0.5), (9, {}, 0.5), (9, {1: 1.0}, 0), (9, {1: 1.0}, 2)]
)
def test_calibrations_have_limits(nats, efficiency, rho):
    with pytest.raises(InvalidValue):
        VectorCapacity(nats, efficiency, rho)
