"""Cells of the transplant benchmark in, a page and a picture out."""

from __future__ import annotations

from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.report import table

Cell = dict[str, Any]
UNTRAINED = "untrained"
"""A donor that was not trained: the assessment must see it."""


def markdown(whole: dict[str, Any]) -> str:
    """All tables."""
    cells, donor = whole["cells"], whole["donor"]
    parts = [
        "# Tokenizer transplants of the default model\n\n"
        f"`{whole['command']}` on {whole['date']}, commit {whole['commit']}.",
        f"Donors: Llamas of {donor['layers']} layer, width {donor['width']}, {donor['steps']} steps of 2,048 tokens "
        "from scratch, sampled softmax, tied embeddings; rows of tokens they never saw are zero, and are spelled. "
        "Numbers stay as the default model cuts them (`--cut numbers`), or all words that are not one token of the "
        f"donor (`--cut words`). Texts: {whole['text_bytes']:,} bytes of published edits and questions (dev splits), "
        "and as much of web sentences; no model saw them.",
    ]
    parts += [whole["note"]] if whole.get("note") else []
    for tokenizer, cut in pairs(cells):
        parts.append(f"## {tokenizer}, {cut}: bits per byte\n\n{_bits(cells, tokenizer, cut)}")
    parts.append(f"## Edit success\n\n{_edits(cells)}")
    parts.append(f"## By spelling of the edit (100 edits; right of asked)\n\n{_spelling(cells)}")
    parts.append(f"## What `--assess` foretold\n\n{_verdicts(cells)}")
    parts.append(f"## The same to the last bit\n\n{_same(cells)}")
    return "\n\n".join(parts) + "\n"


def pairs(cells: dict[str, Cell]) -> list[tuple[str, str]]:
    """Tokenizers and cuts with bits."""
    found = [(c["tokenizer"], c["cut"]) for name, c in cells.items() if name.startswith("bits-")]
    return list(dict.fromkeys(found))


def of(cells: dict[str, Cell], tokenizer: str, cut: str) -> list[Cell]:
    """Bits of the trained donors."""
    own = [cell for name, cell in cells.items() if name.startswith(f"bits-{tokenizer}-{cut}-")]
    return [cell for cell in own if cell["seed"] != UNTRAINED]


def spread(values: list[float]) -> str:
    """Mean and deviation over the donors' seeds."""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def _bits(cells: dict[str, Cell], tokenizer: str, cut: str) -> str:
    own, untrained = of(cells, tokenizer, cut), cells.get(f"bits-{tokenizer}-{cut}-{UNTRAINED}")
    after = {name: [cell["after"]["edits"][name] for cell in own] for name in own[0]["after"]["edits"]}
    web = next(cell for cell in own if cell["after"]["web"])
    rows = [["before", f"{own[0]['before']['edits']:.3f}", "", f"{web['before']['web']:.3f}"]]
    for name in sorted(after, key=lambda name: mean(after[name])):
        bare = f"{untrained['after']['edits'][name]:.3f}" if untrained else "–"
        rows.append([name, spread(after[name]), bare, f"{web['after']['web'][name]:.3f}"])
    head = [
        "rows by",
        f"edits and questions, {len(own)} trained donors",
        "an untrained donor",
        "web, one trained donor",
    ]
    return table(head, rows)


def _verdicts(cells: dict[str, Cell]) -> str:
    """The verdict of every plan beside what became of it: edit success with rows by OMP, bits of the user's text."""
    whole = cells["edits-default"]["success"] if "edits-default" in cells else {}
    rows = []
    for name, cell in cells.items():
        if name.startswith("assess-"):
            plan = name.removeprefix("assess-")
            edits = cells.get(f"edits-{plan}-omp", {}).get("success", {})
            shares = [_relative(edits[size], whole[size]) for size in edits]
            reasons = "; ".join(reason["reason"] for reason in cell["assessment"]["reasons"]) or "–"
            rows.append([plan, cell["assessment"]["verdict"], reasons, " / ".join(shares) or "–", _ratio(cells, plan)])
    sizes = " / ".join(f"{int(size):,}" for size in whole)
    return table(["plan", "verdict", "reasons", f"edit success at {sizes}, of the original", "bits, of before"], rows)


def _ratio(cells: dict[str, Cell], plan: str) -> str:
    """Bits of edits and questions with the best k, in units of the bits before."""
    cell = cells.get(f"bits-{plan}")
    if cell is None:
        return "–"
    found = [bits for name, bits in cell["after"]["edits"].items() if name.startswith("omp")]
    return f"{min(found) / cell['before']['edits']:.2f}"


def _relative(cell: Cell, reference: Cell) -> str:
    return f"{cell['right'] / cell['asked'] / max(1e-9, reference['right'] / reference['asked']):.0%}"


def _edits(cells: dict[str, Cell]) -> str:
    found = {name: cell for name, cell in cells.items() if name.startswith("edits-")}
    sizes = list(found["edits-default"]["success"]) if "edits-default" in found else []
    rows = []
    for name, cell in found.items():
        success, label = cell["success"], name.removeprefix("edits-")
        rows.append([label, *(_share(success[size], found["edits-default"]["success"][size]) for size in sizes)])
    return table(["", *(f"{int(size):,}" for size in sizes)], rows)


def _share(cell: Cell, reference: Cell) -> str:
    low, high = (f"{100 * value:.0f}" for value in cell["ci"])
    return f"{cell['right']} of {cell['asked']} [{low}–{high} %], {_relative(cell, reference)}"


def _spelling(cells: dict[str, Cell]) -> str:
    rows = [
        [name.removeprefix("edits-"), *(f"{right} of {asked}" for right, asked in spelled.values())]
        for name, cell in cells.items()
        if name.startswith("edits-") and (spelled := cell["success"].get("100", {}).get("by_spelling"))
    ]
    return table(["", "cut as before", "cut otherwise, shared pieces", "with estimated tokens"], rows)


def _same(cells: dict[str, Cell]) -> str:
    rows = [
        [name, ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in cell.items())]
        for name, cell in cells.items()
        if name.startswith(("same-", "back-"))
    ]
    return table(["", ""], rows)


def _bits_of(cell: Cell) -> dict[str, float]:
    return dict(cell.get("after", {}).get("edits", {}))


def draw(cells: dict[str, Cell], png: Path) -> None:
    """Bits per byte against k, a line a donor; ridge as a dashed line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5))
    axes: Any = figure.subplots()
    for colour, (tokenizer, cut) in zip(("C0", "C1", "C2", "C3"), pairs(cells), strict=False):
        for cell in of(cells, tokenizer, cut):
            bits = cell["after"]["edits"]
            points = [(int(name.split()[1]), value) for name, value in bits.items() if name.startswith("omp ")]
            label = f"omp, {tokenizer}, {cut}" if cell["seed"] == 0 else None
            axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=label)
            ridge = None if not label else f"ridge, {tokenizer}, {cut}"
            axes.axhline(bits["ridge"], color=colour, linestyle="--", linewidth=0.7, label=ridge)
    axes.set(xscale="log", xlabel="k", ylabel="bits per byte")
    ticks = sorted({int(name.split()[1]) for c in cells.values() for name in _bits_of(c) if name.startswith("omp ")})
    axes.set_xticks(ticks, labels=map(str, ticks))
    axes.minorticks_off()
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(png, dpi=120, bbox_inches="tight")
