"""What a transplant was and what is known about it: lines for a terminal, a page, a JSON document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from incomes_plugin.lab.transplant.assess import Assessment
from incomes_plugin.lab.transplant.checkpoint import Written
from incomes_plugin.lab.transplant.edits import EditsAnswered, EditsKept
from incomes_plugin.lab.transplant.inspection import Inspection
from incomes_plugin.lab.transplant.methods import Recipe
from incomes_plugin.lab.transplant.prepare import Prepared
from incomes_plugin.lab.transplant.trial import Comparison

SHOWN = 8
"""Tokens named in a line."""
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)
"""Of the lengths of rows."""


@dataclass(frozen=True)
class TransplantResult:
    """A finished transplant.

    Attributes:
        bits: None without a text.
        inspections: by matrix; empty for methods that use nothing of the donor.
        edits: None where nobody asked.
    """

    prepared: Prepared
    recipe: Recipe
    written: Written
    bits: Comparison | None
    inspections: Mapping[str, Inspection]
    edits: EditsKept | None = None


def assessment_lines(found: Assessment) -> Iterator[str]:
    """The measurements, then the verdict and its reasons."""
    yield f"tokens of the donor with a row in the base: {found.copied:,} of {found.tokens:,} ({found.coverage:.0%})"
    yield f"rows to estimate: {found.estimated:,}, from {found.anchors:,} shared tokens"
    for part in found.geometry:
        yield (
            f"{part.part}: held-out shared tokens predicted with cosine {part.cosine:.2f}, "
            f"{part.retrieval:.1%} found again (chance {part.chance:.1%})"
        )
    yield f"numbers: the base cuts them as {found.base_digits}, the new tokenizer as {found.donor_digits}"
    if found.text:
        cost = found.text
        change = cost.new_tokens / max(1, cost.base_tokens)
        yield (
            f"text: {cost.base_tokens:,} tokens become {cost.new_tokens:,} ({change:.2f} times), "
            f"{cost.estimated_share:.1%} of them estimated"
        )
        yield f"  {cost.recut_share:.0%} of its words are cut otherwise than before, and are not one token now"
    yield f"verdict: {found.verdict}"
    for verdict, reason in found.reasons:
        yield f"  {verdict}: {reason}"


def result_lines(result: TransplantResult) -> Iterator[str]:
    """What was done, what it costs, what stands out."""
    prepared, written = result.prepared, result.written
    rows, specials = prepared.rows, prepared.specials
    by_id, base_by_id = prepared.donor.vocabulary.by_id, prepared.base.vocabulary.by_id
    yield f"{len(prepared.alignment.copied):,} tokens in both vocabularies: rows copied bit by bit"
    yield f"{len(rows.estimated):,} tokens the base lacks: rows by {_name(result.recipe, written)}"
    for part, ids in written.spelled.items():
        if ids:
            yield f"  {part}: {len(ids):,} of them without a usable row in the donor, made of the base's pieces"
    pairs = [f"{by_id[d].name} = {base_by_id[b].name}" for d, b in specials.copied.items()]
    yield f"special tokens in the same part: {', '.join(pairs) or 'none'}"
    yield f"special tokens brought along: {', '.join(token.name for token in specials.carried) or 'none'}"
    if specials.unmatched:
        names = ", ".join(by_id[index].name for index in specials.unmatched[:SHOWN])
        yield f"special tokens the base knows nothing of: {names}"
    yield f"{rows.num_rows:,} rows, {len(rows.idle):,} of them idle"
    if prepared.adapter:
        yield "the edit adapter came along; stored edits are compressed again by a server that starts with this model"
    yield from _bits_lines(result)
    if result.edits:
        yield f"edits answered: {_count(result.edits.before)} before, {_count(result.edits.after)} after"
    for part, seen in result.inspections.items():
        yield from _inspection_lines(part, seen)


def _name(recipe: Recipe, written: Written) -> str:
    return f"omp, k = {written.k}" if recipe.method == "omp" else recipe.method


def _count(found: EditsAnswered) -> str:
    return f"{found.right} of {found.asked} (the right one picked: {found.chosen})"


def _bits_lines(result: TransplantResult) -> Iterator[str]:
    if result.bits is None:
        return
    chosen = next(score for score in result.bits.scores if score.recipe == result.recipe)
    yield (
        f"bits per byte of the text: {result.bits.before:.3f} before, {chosen.bits_per_byte:.3f} after "
        f"({result.bits.num_bytes:,} bytes)"
    )


def _inspection_lines(part: str, seen: Inspection) -> Iterator[str]:
    asked = f", asked at {seen.probes:,} places of the text" if seen.probes else ""
    yield (
        f"{part}: {len(seen.suspects):,} of {seen.rows:,} new rows stand out (length, distance to {seen.second}{asked})"
        f"; the two methods agree by a median cosine of {seen.agreement:.2f}"
    )
    for suspect in sorted(seen.suspects, key=lambda suspect: -suspect.said)[:SHOWN]:
        yield f"  {suspect.token!r}: {', '.join(suspect.reasons)}"


def document(found: Assessment, result: TransplantResult | None = None) -> dict[str, Any]:
    """Everything for machines; without a result, the assessment alone."""
    reasons = [{"verdict": str(verdict), "reason": reason} for verdict, reason in found.reasons]
    whole: dict[str, Any] = {"assessment": asdict(found) | {"verdict": str(found.verdict), "reasons": reasons}}
    return whole if result is None else whole | {"result": _result(result)}


def _result(result: TransplantResult) -> dict[str, Any]:
    prepared, written = result.prepared, result.written
    lengths = {
        part: {name: _quantiles(found) for name, found in groups.items()} for part, groups in written.lengths.items()
    }
    return {
        "method": result.recipe.method,
        "k": written.k,
        "rows": prepared.rows.num_rows,
        "idle": len(prepared.rows.idle),
        "byte_tokens": len(prepared.alignment.unreached),
        "special": len(prepared.specials.copied),
        "carried": [token.name for token in prepared.specials.carried],
        "spelled": {part: len(ids) for part, ids in written.spelled.items()},
        "row_lengths": {"quantiles": QUANTILES, **lengths},
        "bits_per_byte": None if result.bits is None else asdict(result.bits),
        "edits": None if result.edits is None else asdict(result.edits),
        "inspection": {part: asdict(seen) for part, seen in result.inspections.items()},
    }


def _quantiles(lengths: torch.Tensor) -> list[float]:
    return [float(value) for value in lengths.quantile(torch.tensor(QUANTILES))]


def markdown(found: Assessment, result: TransplantResult) -> str:
    """A page."""
    lines = ["# Tokenizer transplant", "", "## Assessment", ""]
    lines += [f"* {line.strip()}" for line in assessment_lines(found)]
    lines += ["", "## Result", ""]
    lines += [f"* {line.strip()}" for line in result_lines(result)]
    lines += _bits_table(result)
    lines += ["", "## Lengths of rows", "", _row("matrix", "rows", *(f"{q:.0%}" for q in QUANTILES)), "|---" * 7 + "|"]
    lines += [
        _row(part, name, *(f"{value:.3g}" for value in _quantiles(found)))
        for part, groups in result.written.lengths.items()
        for name, found in groups.items()
    ]
    return "\n".join(lines) + "\n"


def _bits_table(result: TransplantResult) -> list[str]:
    if result.bits is None:
        return []
    lines = ["", "## Bits per byte", "", _row("rows by", "k", "bits per byte"), "|---" * 3 + "|"]
    lines.append(_row("the base, its own tokenizer", "", f"{result.bits.before:.4f}"))
    for score in sorted(result.bits.scores, key=lambda score: score.bits_per_byte):
        k = score.recipe.k or result.written.k if score.recipe.method == "omp" else ""
        lines.append(_row(score.recipe.method, str(k), f"{score.bits_per_byte:.4f}"))
    return lines


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
