"""What a transplant was and what is known about it: lines for a terminal, a page, a JSON document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from incomes_plugin.transplant.assess import Assessment
from incomes_plugin.transplant.checkpoint import QUANTILES, Written
from incomes_plugin.transplant.prepare import Prepared

SHOWN = 8
"""Special tokens named in a line."""


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
    yield f"verdict: {found.verdict}"
    for verdict, reason in found.reasons:
        yield f"  {verdict}: {reason}"


def result_lines(prepared: Prepared, method: str, written: Written) -> Iterator[str]:
    """What was done."""
    rows, specials = prepared.rows, prepared.specials
    by_id, base_by_id = prepared.donor.vocabulary.by_id, prepared.base.vocabulary.by_id
    yield f"{len(prepared.alignment.copied):,} tokens in both vocabularies: rows copied bit by bit"
    yield f"{len(rows.estimated):,} tokens the base lacks: rows by {method}" + (
        f", k = {written.k}" if method == "omp" else ""
    )
    for part, ids in written.spelled.items():
        if ids:
            yield f"  {part}: {len(ids):,} of them without a usable row in the donor, made of the base's pieces"
    pairs = [f"{by_id[d].name} = {base_by_id[b].name}" for d, b in specials.copied.items()]
    yield f"special tokens in the same part: {', '.join(pairs) or 'none'}"
    yield f"special tokens brought along: {', '.join(token.name for token in specials.carried) or 'none'}"
    if specials.unmatched:
        names = ", ".join(by_id[index].name for index in specials.unmatched[:SHOWN])
        yield f"special tokens the base knows nothing of: {names}"
    yield f"{len(rows.gist_ids)} gist tokens at new ids; {rows.num_rows:,} rows, {len(rows.idle):,} of them idle"


def document(
    found: Assessment, prepared: Prepared | None = None, method: str = "", written: Written | None = None
) -> dict[str, Any]:
    """Everything for machines; without a result, the assessment alone."""
    reasons = [{"verdict": str(verdict), "reason": reason} for verdict, reason in found.reasons]
    whole: dict[str, Any] = {"assessment": asdict(found) | {"verdict": str(found.verdict), "reasons": reasons}}
    if prepared and written:
        whole["result"] = {
            "method": method,
            "k": written.k,
            "rows": prepared.rows.num_rows,
            "idle": len(prepared.rows.idle),
            "byte_tokens": len(prepared.alignment.unreached),
            "special": len(prepared.specials.copied),
            "carried": [token.name for token in prepared.specials.carried],
            "spelled": {part: len(ids) for part, ids in written.spelled.items()},
            "row_lengths": {"quantiles": QUANTILES, **written.lengths},
        }
    return whole


def markdown(found: Assessment, prepared: Prepared, method: str, written: Written) -> str:
    """A page."""
    lines = ["# Tokenizer transplant", "", "## Assessment", ""]
    lines += [f"* {line.strip()}" for line in assessment_lines(found)]
    lines += ["", "## Result", ""]
    lines += [f"* {line.strip()}" for line in result_lines(prepared, method, written)]
    lines += ["", "## Lengths of rows", "", _row("matrix", "rows", *(f"{q:.0%}" for q in QUANTILES)), "|---" * 7 + "|"]
    lines += [
        _row(part, name, *(f"{value:.3g}" for value in values))
        for part, groups in written.lengths.items()
        for name, values in groups.items()
    ]
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
