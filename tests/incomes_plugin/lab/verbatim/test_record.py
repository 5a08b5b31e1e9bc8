"""A record is what was written, or a typed refusal: never other bytes."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from incomes_plugin.errors import IncomesError, VerbatimDamaged, VerbatimMismatch, VerbatimStale
from incomes_plugin.lab.verbatim.frozen import FrozenModel
from incomes_plugin.lab.verbatim.precision import Precision
from incomes_plugin.lab.verbatim.recall import BlockCheck, recall
from incomes_plugin.lab.verbatim.record import VerbatimChunk, VerbatimRecord, block_digests, digest, dump, load_record
from incomes_plugin.lab.verbatim.worth import ModelItself
from tests.incomes_plugin.lab.verbatim.conftest import QUICK, cram, job
from tests.tiny_model import write_tiny_model

TEXT = "pump"


def record_of(model, outcome, precision=Precision.BFLOAT16):
    text = model.tokenizer.decode(list(outcome.target.ids))
    return VerbatimRecord(model.origin, precision, digest(text.encode()), (VerbatimChunk.of(outcome),))


@pytest.fixture(scope="module", params=Precision)
def record(request, model):
    (outcome,) = cram(model, [job(model, TEXT)], replace(QUICK, precision=request.param)).values()
    return record_of(model, outcome, request.param)


def said(model, record):
    return recall(record, ModelItself(model).decode, model.tokenizer, model.end_id)


def test_round_trip(model, record):
    found = load_record(dump(record))
    assert torch.equal(found.chunks[0].vectors, record.chunks[0].vectors)
    assert replace(found, chunks=()) == replace(record, chunks=())
    found.require(model.origin)
    assert said(model, found) == TEXT
    assert record.vector_bytes == 8 * 64 * record.precision.bits // 8 + (
        16 if record.precision is Precision.INT8 else 0
    )


def test_no_text_in_the_bytes(record):
    assert TEXT.encode() not in dump(record)


def test_every_flipped_bit_is_refused_or_harmless(model, record):
    """Of the header every bit; of the numbers one bit in every byte in turn."""
    blob = dump(record)
    header = 8 + int.from_bytes(blob[:8], "little")
    places = [(i, bit) for i in range(header) for bit in range(8)] + [(i, i % 8) for i in range(header, len(blob))]
    accepted = 0
    for place, bit in places:
        broken = bytearray(blob)
        broken[place] ^= 1 << bit
        try:
            found = load_record(bytes(broken))
        except VerbatimDamaged:
            continue
        accepted += 1
        assert torch.equal(found.chunks[0].vectors, record.chunks[0].vectors)
        assert replace(found, chunks=()) == replace(record, chunks=())
    assert accepted < len(places) // 1000


@pytest.mark.parametrize("length", [0, 7, 8, 100, -1])
def test_a_part_of_a_record_is_refused(record, length):
    with pytest.raises(VerbatimDamaged, match="make the vectors again"):
        load_record(dump(record)[:length])


def test_a_header_of_its_own_making_is_refused(record, tmp_path):
    """Whoever changes a hash has to change the checksum too; who does both has written another record."""
    path = tmp_path / "record.safetensors"
    path.write_bytes(dump(record))
    tensors = load_file(path)
    blob = path.read_bytes()
    header = json.loads(json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])["__metadata__"]["incomes"])
    header["chunks"][0]["blocks"] = list(block_digests([1, 2, 3]))
    save_file(tensors, path, metadata={"incomes": json.dumps(header)})
    with pytest.raises(VerbatimDamaged, match="checksum"):
        load_record(path.read_bytes())


def test_changed_weights_are_stale(model, record, folder, tmp_path):
    other = write_tiny_model(tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name][0, 0] += 1e-3
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    changed = FrozenModel(other)
    with pytest.raises(VerbatimStale, match=r"the model vf_.*make the vectors again"):
        record.require(changed.origin)


def test_another_dtype_is_stale(model, record, folder):
    with pytest.raises(VerbatimStale, match="model"):
        record.require(FrozenModel(folder, torch.bfloat16).origin)


def test_a_changed_tokenizer_is_stale(model, record, tmp_path):
    """Two tokens change places: every hash of ids still holds, the bytes would not."""
    other = write_tiny_model(tmp_path / "other")
    path = other / "tokenizer.json"
    document = json.loads(path.read_text())
    vocabulary = document["model"]["vocab"]
    vocabulary["p"], vocabulary["q"] = vocabulary["q"], vocabulary["p"]
    path.write_text(json.dumps(document))
    changed = FrozenModel(other)
    assert changed.origin.tokenizer != model.origin.tokenizer
    with pytest.raises(VerbatimStale):
        record.require(changed.origin)
    with pytest.raises(VerbatimMismatch, match="tokenizer"):  # and were that check forgotten, the text's hash stands
        recall(record, ModelItself(model).decode, changed.tokenizer, model.end_id)


def test_a_changed_template_is_stale(model, record):
    with pytest.raises(VerbatimStale, match="template"):
        record.require(replace(model.origin, template="0" * 16))


def test_another_vector_never_gives_other_bytes(model, record):
    """Noise on the numbers, past every checksum: the text or a refusal."""
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for size in (0.01, 0.1, 0.3, 1.0, 3.0):
        chunk = record.chunks[0]
        noise = torch.randn(chunk.vectors.shape, generator=generator) * chunk.vectors.std() * size
        noisy = replace(record, chunks=(replace(chunk, vectors=chunk.vectors + noise),))
        try:
            assert said(model, noisy) == TEXT
        except VerbatimMismatch:
            refused += 1
    assert refused > 0


IDS = list(range(10, 50))
CHUNK = VerbatimChunk(len(IDS), torch.zeros(1, 4), 1.0, 1, block_digests(IDS))


def released(ids):
    check, out = BlockCheck(CHUNK, 2), []
    for token in ids:
        out += check.feed(token)
    check.finish()
    return out


def test_blocks_are_released_when_checked():
    check = BlockCheck(CHUNK, 2)
    assert [len(check.feed(token)) for token in [*IDS, 2]] == [*([0] * 15 + [16]) * 2, *[0] * 7, 8, 0]
    check.finish()
    assert released([*IDS, 2]) == IDS


@pytest.mark.parametrize("place", range(len(IDS)))
def test_a_wrong_token_releases_nothing_of_its_block(place):
    check, out = BlockCheck(CHUNK, 2), []

    def say(ids):
        for token in ids:
            out.extend(check.feed(token))

    with pytest.raises(VerbatimMismatch):
        say([*IDS[:place], 9, *IDS[place + 1 :], 2])
    assert out == IDS[: place // 16 * 16]


@pytest.mark.parametrize("ids", [IDS, [*IDS, 9], [*IDS[:5], 2], [], [2], [*IDS, 2, 9]])
def test_a_text_that_ends_elsewhere_is_refused(ids):
    with pytest.raises(VerbatimMismatch):
        released(ids)


def test_errors_are_ours():
    assert {VerbatimDamaged.code, VerbatimStale.code, VerbatimMismatch.code} == {
        "verbatim_damaged", "verbatim_stale", "verbatim_mismatch",
    }  # fmt: skip
    assert issubclass(VerbatimStale, IncomesError)
