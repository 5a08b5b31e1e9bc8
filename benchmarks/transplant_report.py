"""Cells of the transplant benchmark in, a page and a picture out."""

from __future__ import annotations

from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.report import table

Cell = dict[str, Any]


def markdown(whole: dict[str, Any]) -> str:
    """All tables."""
    cells, donor = whole["cells"], whole["donor"]
    parts = [
        "# Tokenizer transplants of the default model\n\n"
        f"`{whole['command']}` on {whole['date']}, commit {whole['commit']}.",
        f"Donors: Llamas of {donor['layers']} layer, width {donor['width']}, {donor['steps']} steps of 2,048 tokens "
        "from scratch, sampled softmax, tied embeddings; rows of tokens they never saw are zero, and are spelled. "
        f"Numbers stay as the default model cuts them. Text: {whole['text_bytes']:,} bytes that no model saw.",
    ]
    parts += [whole["note"]] if whole.get("note") else []
    for tokenizer in tokenizers(cells):
        parts.append(f"## {tokenizer}: bits per byte\n\n{_bits(cells, tokenizer)}")
    parts.append(f"## Edit success\n\n{_edits(cells)}")
    parts.append(f"## By spelling of the edit (100 edits; right of asked)\n\n{_spelling(cells)}")
    parts.append(f"## The same to the last bit\n\n{_same(cells)}")
    return "\n\n".join(parts) + "\n"


def tokenizers(cells: dict[str, Cell]) -> list[str]:
    """Those with bits."""
    return list(dict.fromkeys(cell["tokenizer"] for name, cell in cells.items() if name.startswith("bits-")))


def of(cells: dict[str, Cell], tokenizer: str) -> list[Cell]:
    """Bits of the trained donors."""
    own = [cell for name, cell in cells.items() if name.startswith(f"bits-{tokenizer}-")]
    return [cell for cell in own if cell["seed"] != "untrained"]


def spread(values: list[float]) -> str:
    """Mean and deviation over the donors' seeds."""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def _bits(cells: dict[str, Cell], tokenizer: str) -> str:
    own, untrained = of(cells, tokenizer), cells.get(f"bits-{tokenizer}-untrained")
    names = sorted(own[0]["bits_per_byte"], key=lambda name: mean(cell["bits_per_byte"][name] for cell in own))
    rows = [["before", f"{own[0]['before']:.3f}", ""]]
    for name in names:
        bare = f"{untrained['bits_per_byte'][name]:.3f}" if untrained else "–"
        rows.append([name, spread([cell["bits_per_byte"][name] for cell in own]), bare])
    verdicts = ", ".join(sorted({cell["assessment"]["verdict"] for cell in own}))
    bare = untrained["assessment"]["verdict"] if untrained else "–"
    rows.append(["verdict of --assess", verdicts, bare])
    return table(["rows by", f"trained donors ({len(own)})", "an untrained donor"], rows)


def _edits(cells: dict[str, Cell]) -> str:
    found = {name: cell for name, cell in cells.items() if name.startswith("edits-")}
    sizes = list(found["edits-default"]["success"]) if "edits-default" in found else []
    rows = []
    for name, cell in found.items():
        success, label = cell["success"], name.removeprefix("edits-")
        rows.append([label, *(_share(success[size], found["edits-default"]["success"][size]) for size in sizes)])
    return table(["", *(f"{int(size):,}" for size in sizes)], rows)


def _share(cell: Cell, reference: Cell) -> str:
    relative = cell["right"] / cell["asked"] / max(1e-9, reference["right"] / reference["asked"])
    low, high = (f"{100 * value:.0f}" for value in cell["ci"])
    return f"{cell['right']} of {cell['asked']} [{low}–{high} %], {relative:.0%} of the original"


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
        if name.startswith(("same-", "there-"))
    ]
    return table(["", ""], rows)


def draw(cells: dict[str, Cell], png: Path) -> None:
    """Bits per byte against k, a line a donor; ridge as a dashed line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5))
    axes: Any = figure.subplots()
    for colour, tokenizer in zip(("C0", "C1", "C2"), tokenizers(cells), strict=False):
        for cell in of(cells, tokenizer):
            bits = cell["bits_per_byte"]
            points = [(int(name.split()[1]), value) for name, value in bits.items() if name.startswith("omp ")]
            label = f"omp, {tokenizer}" if cell["seed"] == 0 else None
            axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=label)
            axes.axhline(
                bits["ridge"], color=colour, linestyle="--", linewidth=0.7, label=None if not label else "ridge"
            )
    axes.set(xscale="log", xlabel="k", ylabel="bits per byte")
    axes.legend(fontsize="small")
    figure.savefig(png, dpi=120, bbox_inches="tight")
