"""Texts become vectors in the worker: those that do not fit stay text, those that nobody wants are dropped, former
vectors are where a search begins."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from incomes_server.compression.cramming import CramLimits, Cramming
from incomes_server.edits.verbatim import VerbatimJob, VerbatimState

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.verbatim.decode import greedy
from incomes_plugin.lab.verbatim.frozen import FrozenModel
from incomes_plugin.lab.verbatim.planner import VectorCapacity
from incomes_plugin.lab.verbatim.record import dump, load_record
from incomes_plugin.lab.verbatim.row import CramSettings
from tests.tiny_model import write_tiny_model

HELD, SPECIAL = "valve 7", "no<eos>end"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.set_num_threads(1)
    return FrozenModel(write_tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def cramming(model):
    return Cramming(model, VectorCapacity(30.0), CramSettings(max_steps=300, patience=300, most_rows=2))


def all_of(cramming):
    found = []
    while cramming.busy:
        found += cramming.step()
    return {outcome.edit_id: outcome for outcome in found}


@pytest.fixture(scope="module")
def made(model):
    """One text with its vectors."""
    cramming = Cramming(model, VectorCapacity(30.0), CramSettings(max_steps=300, patience=300))
    assert cramming.add(VerbatimJob("edit_a", 1, HELD)) is None
    return all_of(cramming)["edit_a"]


def test_a_record_says_the_text_and_names_what_it_is_valid_for(model, made):
    assert (made.state, made.reason, made.tokens) == (VerbatimState.VERIFIED, None, len(HELD))
    record = load_record(made.record)
    (chunk,) = record.chunks
    said = greedy(model, chunk.vectors, chunk.num_tokens + 1)
    assert model.tokenizer.decode(said[:-1]) == HELD
    assert (made.vectors, made.margin, json.loads(made.origin)) == (
        record.num_vectors, chunk.margin, asdict(model.origin),
    )  # fmt: skip
    assert made.margin >= 1
    assert made.steps > 0


def test_what_cannot_be_said_stays_text_at_once(cramming):
    outcome = cramming.add(VerbatimJob("edit_s", 1, SPECIAL))
    assert (outcome.state, outcome.record, cramming.busy) == (VerbatimState.TEXT_FALLBACK, None, False)
    assert "special token '<eos>'" in outcome.reason


def test_what_is_not_found_in_time_stays_text_and_says_how_far_it_came(model):
    short = Cramming(model, VectorCapacity(30.0), CramSettings(max_steps=2, patience=2))
    short.add(VerbatimJob("edit_a", 1, HELD))
    outcome = all_of(short)["edit_a"]
    assert outcome.state is VerbatimState.TEXT_FALLBACK
    assert f"of {len(HELD) + 1} tokens right after" in outcome.reason


def test_texts_that_nobody_wants_any_more_leave_with_their_vectors(cramming):
    for edit in ("edit_a", "edit_b", "edit_c"):
        cramming.add(VerbatimJob(edit, 1, f"{HELD} {edit}"))
    cramming.step()
    cramming.keep([("edit_c", 1)])
    crammer = cramming._crammer
    left = [row.job.target.name for row in crammer.rows] + [job.target.name for job in crammer.waiting]
    assert {name.split("@")[0] for name in left} == {"edit_c"}
    cramming.keep([])
    assert not cramming.busy
    assert cramming.step() == []


def test_a_text_comes_in_while_others_run(cramming):
    cramming.add(VerbatimJob("edit_a", 1, HELD))
    cramming.step()
    cramming.add(VerbatimJob("edit_b", 1, "x=3;y"))
    assert all_of(cramming).keys() == {"edit_a", "edit_b"}


def test_two_chunks_that_are_given_up_in_one_pass_end_their_text_once(model):
    cramming = Cramming(model, VectorCapacity(3000.0), CramSettings(max_steps=2, patience=2, most_rows=8))
    long = "".join(f"valve 7 leaks at 3 bar; x={i};y " for i in range(12))
    assert cramming.add(VerbatimJob("edit_long", 1, long)) is None
    assert len(cramming._plans["edit_long", 1].chunks) > 1
    assert cramming.add(VerbatimJob("edit_short", 1, "abc")) is None
    assert all_of(cramming).keys() == {"edit_long", "edit_short"}
    assert cramming.add(VerbatimJob("edit_later", 1, "abc")) is None
    assert all_of(cramming).keys() == {"edit_later"}


def test_a_text_that_left_while_another_one_of_its_pass_was_told_has_no_outcome(model):
    cramming = Cramming(model, VectorCapacity(300.0), CramSettings(max_steps=2, patience=2, most_rows=8))
    for edit in ("edit_a", "edit_b"):
        assert cramming.add(VerbatimJob(edit, 1, f"{HELD} {edit}")) is None
    while not cramming.step():
        pass
    cramming.keep([])  # the other was retired, while the first one was judged
    assert cramming.add(VerbatimJob("edit_c", 1, HELD)) is None
    assert all_of(cramming).keys() == {"edit_c"}


def test_a_search_begins_at_the_former_vectors(cramming, made):
    """They are exact already: the same text needs no step, as when only the template's name had changed."""
    cramming.add(VerbatimJob("edit_a", 2, HELD, made.record, HELD))
    found = all_of(cramming)["edit_a"]
    assert (found.state, found.steps) == (VerbatimState.VERIFIED, 0)
    damaged = bytearray(made.record)
    damaged[-1] ^= 1
    cramming.add(VerbatimJob("edit_b", 2, HELD, bytes(damaged), HELD))
    assert all_of(cramming)["edit_b"].steps > 0, "damaged vectors are no start"


def test_another_models_capacity_is_refused(model, tmp_path):
    file = tmp_path / "capacity.json"
    calibration = {"nats_per_vector": 30.0, "efficiency": {"1": 1.0}}
    file.write_text(json.dumps({"calibration": calibration, "origin": asdict(model.origin) | {"model": "vf_other"}}))
    limits = CramLimits(model.folder, "float32", steps=7, texts=3, capacity=file)
    with pytest.raises(InvalidValue, match="vf_other"):
        limits.load()
    file.write_text(json.dumps({"calibration": calibration, "origin": asdict(model.origin)}))
    _, capacity, settings = limits.load()
    assert (capacity.nats_per_vector, settings.max_steps, settings.most_rows) == (30.0, 7, 3)


def test_what_former_vectors_lead_nowhere_begins_once_more_without_them(model, made):
    """Vectors of another model, for one; here they are far away."""
    record = load_record(made.record)
    far = replace(record.chunks[0], vectors=record.chunks[0].vectors + 100.0)
    job = VerbatimJob("edit_a", 2, HELD, dump(replace(record, chunks=(far,))), HELD)
    cramming = Cramming(model, VectorCapacity(30.0), CramSettings(max_steps=300, patience=300))
    assert cramming.add(job) is None
    found = all_of(cramming)["edit_a"]
    assert (found.state, found.steps) == (VerbatimState.VERIFIED, made.steps), "as from the beginning"


def test_chunks_that_lead_nowhere_in_one_pass_begin_once_more_together(model):
    """What the second one's former vectors led to is no outcome of the text that has begun anew."""
    long = "".join(f"valve 7 leaks at 3 bar; x={i};y " for i in range(12))
    cramming = Cramming(model, VectorCapacity(3000.0), CramSettings(max_steps=2, patience=2, most_rows=8))
    job = VerbatimJob("edit_long", 1, long, b"damaged", long)
    assert cramming.add(job) is None
    assert len(cramming._plans[job.edit].chunks) > 1
    while cramming._jobs[job.edit].former is not None:
        assert cramming.step() == []
    begun = cramming._plans[job.edit]
    assert cramming.step() == []
    assert cramming._plans[job.edit] is begun
    assert all_of(cramming)["edit_long"].steps > 0
