"""What comes out of a recall is the stored text to the byte, whatever the engine says; and how it came is told."""

import asyncio
from dataclasses import replace

import pytest

from incomes_plugin.errors import EngineLost, SelectionFailed, VerbatimMismatch, VerbatimStale
from incomes_plugin.lab.verbatim.frame import RecallFrame
from incomes_plugin.lab.verbatim.precision import Precision
from incomes_plugin.lab.verbatim.record import VerbatimChunk, VerbatimRecord, block_digests, digest, dump, load_record
from incomes_plugin.lab.verbatim.serving import Recaller, RecallStream
from incomes_plugin.lab.verbatim.targets import tokens_of

TEXT = "Zöe may end this contract at any time, in writing, with 14 days' notice; " * 2
CHUNK = 40


@pytest.fixture(scope="module")
def frame(folder, model):
    return RecallFrame.of(folder, model.dtype)


@pytest.fixture(scope="module")
def record(frame, model):
    """A record of two chunks; its vectors are random, as `Engine` looks its answers up."""
    ids = tokens_of(frame.tokenizer, TEXT)
    parts = [ids[:CHUNK], ids[CHUNK:]]
    vectors = Precision.BFLOAT16.as_stored(model.embed([1, 2, 3, 4]).float()).split(2)
    chunks = [VerbatimChunk(len(p), v, 1.0, 1, block_digests(p)) for p, v in zip(parts, vectors, strict=True)]
    return VerbatimRecord(frame.origin, Precision.BFLOAT16, digest(TEXT.encode()), tuple(chunks))


class Engine:
    """Says what the vectors of a record stand for, in pieces; at one place something else."""

    def __init__(self, frame, record, wrong_at=None, error=None):
        ids = tokens_of(frame.tokenizer, TEXT)
        self.said = [[*ids[:CHUNK], frame.end_id], [*ids[CHUNK:], frame.end_id]]
        if wrong_at is not None:
            self.said[wrong_at >= CHUNK][wrong_at % CHUNK] += 1
        self.vectors = [chunk.vectors for chunk in record.chunks]
        self.error = error
        self.running = 0

    async def say(self, template, vectors, num_tokens):
        number = next(i for i, own in enumerate(self.vectors) if own.equal(vectors))
        self.running += 1
        try:
            for start in range(0, num_tokens + 1, 3):
                await asyncio.sleep(0)
                yield self.said[number][start : start + 3]
            if self.error is not None:
                raise self.error
        finally:
            self.running -= 1


def streamed(frame, engine, blob, reason="planning", text=TEXT):
    return RecallStream(Recaller(lambda: frame, engine.say), text, blob, reason)


async def told(stream, upto=None):
    return [piece async for piece in stream.pieces(upto)]


async def test_the_frame_is_that_of_the_model(frame, model):
    assert frame.origin == model.origin
    assert (frame.template, frame.end_id) == (model.template, model.end_id)


async def test_blocks_come_one_by_one_from_vectors(frame, record):
    engine = Engine(frame, record)
    stream = streamed(frame, engine, dump(record))
    pieces = await told(stream)
    assert "".join(pieces) == TEXT
    assert len(pieces) > 4
    assert (stream.source, stream.reason, engine.running) == ("vectors", None, 0)


@pytest.mark.parametrize("wrong_at", [0, 1, 20, CHUNK - 1, CHUNK, CHUNK + 17])
async def test_from_a_wrong_token_on_the_stored_text_comes(frame, record, wrong_at):
    engine = Engine(frame, record, wrong_at)
    stream = streamed(frame, engine, dump(record))
    pieces = await told(stream)
    assert "".join(pieces) == TEXT
    assert (stream.source, stream.reason, engine.running) == ("stored_text", VerbatimMismatch.code, 0)
    right = wrong_at - wrong_at % CHUNK % 16
    before = frame.tokenizer.decode(list(tokens_of(frame.tokenizer, TEXT))[:right])
    assert len("".join(pieces[:-1])) <= len(before), "nothing of the wrong block has been released"


async def test_a_part_of_the_text_is_enough(frame, record):
    engine = Engine(frame, record, wrong_at=CHUNK + 17)
    stream = streamed(frame, engine, dump(record))
    assert "".join(await told(stream, 9)) == TEXT[:9]
    assert (stream.source, engine.running) == ("vectors", 0), "what is behind it was not asked for"


async def test_no_bit_of_a_record_can_be_flipped_unseen(frame, record):
    blob = dump(record)
    for place in range(0, 8 * len(blob), 1001):
        flipped = bytearray(blob)
        flipped[place // 8] ^= 1 << place % 8
        stream = streamed(frame, Engine(frame, record), bytes(flipped))
        assert "".join(await told(stream)) == TEXT
        assert (stream.source, stream.reason) == ("stored_text", "verbatim_damaged")


@pytest.mark.parametrize("part", ["model", "tokenizer", "template"])
async def test_another_origin_is_stale(frame, record, part):
    other = replace(record, origin=replace(record.origin, **{part: "other"}))
    stream = streamed(frame, Engine(frame, record), dump(other))
    assert "".join(await told(stream)) == TEXT
    assert (stream.source, stream.reason) == ("stored_text", VerbatimStale.code)


async def test_a_record_of_another_text_is_not_said(frame, record):
    stream = streamed(frame, Engine(frame, record), dump(record), text="Another text.")
    assert "".join(await told(stream)) == "Another text."
    assert stream.reason == VerbatimStale.code


async def test_a_lost_engine_is_no_lost_text(frame, record):
    stream = streamed(frame, Engine(frame, record, error=EngineLost("the engine died")), dump(record))
    assert "".join(await told(stream)) == TEXT
    assert (stream.source, stream.reason) == ("stored_text", EngineLost.code)


async def test_an_engine_with_a_bug_is_no_lost_text_either(frame, record):
    stream = streamed(frame, Engine(frame, record, error=KeyError("a bug")), dump(record))
    async with asyncio.timeout(60):
        assert "".join(await told(stream)) == TEXT
    assert (stream.source, stream.reason) == ("stored_text", SelectionFailed.code)


async def test_without_a_record_the_reason_is_the_state(frame, record):
    stream = streamed(frame, Engine(frame, record), None, "optimising")
    assert await told(stream) == [TEXT]
    assert (stream.source, stream.reason) == ("stored_text", "optimising")


async def test_the_serving_engine_says_the_tokens_or_it_is_a_mismatch(frame, record):
    loaded = load_record(dump(record))
    said = Recaller(lambda: frame, Engine(frame, record).say)
    assert [i async for ids in said.tokens(loaded) for i in ids] == list(tokens_of(frame.tokenizer, TEXT))
    wrong = Recaller(lambda: frame, Engine(frame, record, 3).say)
    with pytest.raises(VerbatimMismatch):
        _ = [ids async for ids in wrong.tokens(loaded)]
