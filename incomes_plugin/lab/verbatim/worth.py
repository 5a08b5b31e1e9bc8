"""What vectors are worth for a user's own texts, beside gzip, the text in the prompt, and the text in the store.

Every text is recalled by the engine; what it says is compared with the text to the byte. Nothing here is estimated but
what is called so.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Protocol

import torch

from incomes_plugin.errors import VerbatimMismatch
from incomes_plugin.lab.verbatim.decode import greedy
from incomes_plugin.lab.verbatim.frozen import FrozenModel
from incomes_plugin.lab.verbatim.recall import RecallDecode, recall
from incomes_plugin.lab.verbatim.record import VerbatimChunk, VerbatimRecord, dump, load_record
from incomes_plugin.lab.verbatim.run import CramResult


class RecallEngine(Protocol):
    """What decodes: vLLM, or the model itself."""

    def decode(self, vectors: Sequence[torch.Tensor], most_tokens: Sequence[int]) -> list[list[int]]:
        """Tokens after each `[K, hidden]`."""

    def continuations(self, prompts: Sequence[Sequence[int]], most_tokens: Sequence[int]) -> list[list[int]]:
        """Plain generation after token ids."""


class ModelItself:
    """`RecallEngine` without vLLM, one text after the other."""

    def __init__(self, model: FrozenModel) -> None:
        self._model = model

    def decode(self, vectors: Sequence[torch.Tensor], most_tokens: Sequence[int]) -> list[list[int]]:
        """See `RecallEngine`."""
        return [greedy(self._model, own, most) for own, most in zip(vectors, most_tokens, strict=True)]

    @torch.inference_mode()
    def continuations(self, prompts: Sequence[Sequence[int]], most_tokens: Sequence[int]) -> list[list[int]]:
        """See `RecallEngine`; it goes on over end tokens, so that as many tokens are said."""
        found, device = [], self._model.device
        for ids, most in zip(prompts, most_tokens, strict=True):
            output = self._model.model.generate(
                torch.tensor([list(ids)], device=device), attention_mask=torch.ones(1, len(ids), device=device),
                do_sample=False, max_new_tokens=most, min_new_tokens=most, pad_token_id=self._model.end_id,
            )  # fmt: skip
            found.append(output[0, len(ids) :].tolist())
        return found


@dataclass(frozen=True)
class TextWorth:
    """One text.

    Attributes:
        exact: the engine said it to the byte. reason: why it is kept as plain text; empty if it is not.
    """

    name: str
    exact: bool
    reason: str
    text_bytes: int
    gzip_bytes: int
    tokens: int
    vectors: int = 0
    vector_bytes: int = 0
    record_bytes: int = 0
    steps: int = 0
    margin: float = 0.0


@dataclass(frozen=True)
class Worth:
    """All texts together.

    Attributes:
        gzip_together_bytes: of all texts in one archive.
        kv_bytes_per_token: keys and values of one position in all layers.
        recall_tokens_per_s, plain_tokens_per_s: as many tokens said from vectors, and after the template alone.
    """

    texts: tuple[TextWorth, ...]
    gzip_together_bytes: int
    kv_bytes_per_token: int
    recall_tokens_per_s: float
    plain_tokens_per_s: float


def worth(model: FrozenModel, found: Sequence[CramResult], engine: RecallEngine) -> Worth:
    """Recall every record from its bytes, as a reader would: alone, and all records together. Then count."""
    records = [_reread(model, one.record) if one.record else None for one in found]
    chunks = [chunk for record in records if record for chunk in record.chunks]
    together, rates = _timed(model, chunks, engine) if chunks else ([], (0.0, 0.0))
    texts = []
    for one, record in zip(found, records, strict=True):
        count = len(record.chunks) if record else 0
        own, together = together[:count], together[count:]
        texts.append(_one(model, one, record, engine, own))
    archive = gzip.compress("\n".join(one.plan.text for one in found).encode(), mtime=0)
    return Worth(tuple(texts), len(archive), model.kv_bytes_per_token, *rates)


def _reread(model: FrozenModel, record: VerbatimRecord) -> VerbatimRecord:
    found = load_record(dump(record))
    found.require(model.origin)
    return found


def _one(
    model: FrozenModel,
    one: CramResult,
    record: VerbatimRecord | None,
    engine: RecallEngine,
    together: Sequence[list[int]],
) -> TextWorth:
    """Both ways of recall have to give the text; `together` is what was said of its chunks beside all others."""
    raw = one.plan.text.encode()
    sizes = {"text_bytes": len(raw), "gzip_bytes": len(gzip.compress(raw, mtime=0)), "tokens": one.plan.num_tokens}
    steps = sum(outcome.steps for outcome in one.outcomes)
    if record is None:
        return TextWorth(one.plan.name, exact=False, reason=one.reason, steps=steps, **sizes)
    reason = ""
    ways: tuple[RecallDecode, ...] = (engine.decode, lambda vectors, most_tokens: list(together))
    for decode in ways:
        try:
            recall(record, decode, model.tokenizer, model.end_id)
        except VerbatimMismatch as error:
            reason = error.message
    return TextWorth(
        one.plan.name, exact=not reason, reason=reason, steps=steps, margin=min(c.margin for c in record.chunks),
        vectors=record.num_vectors, vector_bytes=record.vector_bytes, record_bytes=len(dump(record)), **sizes,
    )  # fmt: skip


def _timed(
    model: FrozenModel, chunks: Sequence[VerbatimChunk], engine: RecallEngine
) -> tuple[list[list[int]], tuple[float, float]]:
    """What is said of all chunks at once, and tokens a second of that and of plain generation, once the engine ran."""
    most = [chunk.num_tokens + 1 for chunk in chunks]
    engine.continuations([model.template], [2])
    start_s = time.perf_counter()
    said = engine.decode([chunk.vectors for chunk in chunks], most)
    middle_s = time.perf_counter()
    plain = engine.continuations([model.template] * len(chunks), most)
    end_s = time.perf_counter()
    return said, (sum(map(len, said)) / (middle_s - start_s), sum(map(len, plain)) / (end_s - middle_s))


def document(found: Worth) -> dict[str, Any]:
    """Everything, as JSON."""
    return asdict(found)


def lines(found: Worth) -> Iterator[str]:
    """The figures and what follows from them, for people."""
    held = [text for text in found.texts if text.exact]
    yield f"exact       {len(held)} of {len(found.texts)} texts came back to the byte; the others stay plain text"
    for text in found.texts:
        if not text.exact:
            yield f"            {text.name}: {text.reason}"
    if not held:
        yield "advice      keep these texts as plain text"
        return
    yield from _sizes(found, held)
    yield from _advice(held)


def _sizes(found: Worth, held: Sequence[TextWorth]) -> Iterator[str]:
    vectors, tokens = sum(t.vectors for t in held), sum(t.tokens for t in held)
    steps, margin = fmean(t.steps for t in held), min(t.margin for t in held)
    yield f"vectors     {vectors} for {tokens} tokens in {len(held)} texts; {steps:.0f} steps each, margin {margin:.2f}"
    yield (
        f"bytes       {sum(t.vector_bytes for t in held):,} of vectors ({sum(t.record_bytes for t in held):,} with "
        f"headers) for {sum(t.text_bytes for t in held):,} of text; gzip {sum(t.gzip_bytes for t in held):,} one by "
        f"one, {found.gzip_together_bytes:,} for all texts in one archive"
    )
    saved = tokens - vectors
    yield (
        f"context     {saved} of {tokens} positions saved against the text in the prompt, "
        f"{saved * found.kv_bytes_per_token:,} bytes of keys and values ({found.kv_bytes_per_token:,} a position)"
    )
    rates = found.recall_tokens_per_s, found.plain_tokens_per_s
    yield f"speed       {rates[0]:.1f} tokens/s from vectors, {rates[1]:.1f} in plain generation"


def _advice(held: Sequence[TextWorth]) -> Iterator[str]:
    """When the plain text is the better choice."""
    text_bytes = sum(t.text_bytes for t in held)
    ratio = sum(t.vector_bytes for t in held) / text_bytes
    if ratio >= 1:
        yield f"advice      as storage the text is better: vectors take {ratio:.1f} times its bytes"
    else:
        zipped = sum(t.gzip_bytes for t in held) / text_bytes
        yield f"advice      vectors take {ratio:.2f} of the text's bytes, gzip {zipped:.2f}"
    share = 1 - sum(t.vectors for t in held) / sum(t.tokens for t in held)
    longest = max(t.tokens for t in held)
    yield from (
        f"            {line}"
        for line in (
            "when the answer is the text and nothing else, send the stored text: exact, at once, without decoding",
            "when the model has to reason about a text, put it into the prompt or make an edit of it",
            f"vectors are for a model that has to say a text itself from a short context: {share:.0%} fewer positions",
            f"the longest text that came back has {longest} tokens: that is all that the prompt would need for it",
        )
    )
