"""`python -m benchmarks.verbatim --capacity FILE [--only accept together …]`: texts crammed into the default base.

    accept          clauses of `incomes_plugin.lab.verbatim.clauses` with planned vectors; what vLLM then says
    together        the shortest clauses at once, from piece means; then changed ones from these vectors
    without_margin  the same, accepted as soon as every token is right
    random          the same from random numbers
    alone           the same one by one
    published       the same one by one in float32, the model loaded anew for each text

A section that is in the results file already is kept; `accept` goes on from its state. One thread.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from incomes_plugin.lab.provenance import provenance
from incomes_plugin.lab.verbatim import run
from incomes_plugin.lab.verbatim.clauses import verbatim_texts
from incomes_plugin.lab.verbatim.decode import VllmRecall, greedy
from incomes_plugin.lab.verbatim.frozen import FrozenModel
from incomes_plugin.lab.verbatim.optimise import Crammer, CramOutcome
from incomes_plugin.lab.verbatim.planner import VectorCapacity
from incomes_plugin.lab.verbatim.precision import Precision
from incomes_plugin.lab.verbatim.row import CramJob, CramSettings
from incomes_plugin.lab.verbatim.start import mean_embeddings, random_vectors
from incomes_plugin.lab.verbatim.targets import CramTarget, tokens_of
from incomes_plugin.lab.verbatim.worth import document, lines, worth
from incomes_plugin.model.base import resolve_model

RESULTS = Path(__file__).parent / "results"
SECTIONS = ("accept", "together", "without_margin", "random", "alone", "published")
CHANGES = (("30", "45"), ("7741", "7752"), ("fourteen", "twenty"), ("red", "blue"), ("roja", "azul"))
"""What makes another version of a clause."""
NOISE_DRAWS = 4


def main(argv: list[str]) -> int:
    """Run what is missing and write verbatim-texts.json and .md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verbatim", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--model", default="default", help="base: default, a folder, a hub id")
    parser.add_argument("--capacity", type=Path, required=True, help="verbatim-capacity.json of the model")
    parser.add_argument("--texts", type=int, default=20, help="of the section accept")
    parser.add_argument("--few", type=int, default=4, help="texts of the other sections, the shortest")
    parser.add_argument("--state", type=Path, default=Path("verbatim-state.safetensors"), help="of the section accept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    model = FrozenModel(resolve_model(args.model))
    calibration = VectorCapacity.read(args.capacity, model.origin.model, VectorCapacity.rho)
    path = args.out / "verbatim-texts.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    few = shortest(model, calibration, args.few)
    on, off = CramSettings(), CramSettings(margin=0.0)
    sections: dict[str, Callable[[], Any]] = {
        "accept": lambda: accept(model, calibration, verbatim_texts()[: args.texts], args.state),
        "together": lambda: measured(lambda: crammed(model, few, on), model, with_changes=True),
        "without_margin": lambda: measured(lambda: crammed(model, few, off), model),
        "random": lambda: measured(lambda: crammed(model, [from_nowhere(model, one) for one in few], on), model),
        "alone": lambda: measured(lambda: [crammed(model, [one], on)[0] for one in few], model),
        "published": lambda: measured(lambda: [published(model.folder, one) for one in few], model),
    }
    for name in args.only:
        if name not in result:
            where = provenance(f"python -m benchmarks.verbatim {' '.join(argv)}".strip())
            result |= where | {"base": model.folder.name, "settings": asdict(CramSettings())}
            result[name] = sections[name]()
            write(result, args.out)
    sys.stdout.write(markdown(result))
    return 0


def write(result: dict[str, Any], out: Path) -> None:
    """Results for machines and for people."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "verbatim-texts.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / "verbatim-texts.md").write_text(markdown(result))


def accept(model: FrozenModel, calibration: VectorCapacity, texts: Sequence[str], state: Path) -> dict[str, Any]:
    """Cram all, then let vLLM say them."""
    plans = [run.plan(model, f"text-{number}", text, calibration) for number, text in enumerate(texts, 1)]
    start_s = time.process_time()
    found = run.cram(model, plans, CramSettings(), state, lambda *_: None)
    cpu_s = time.process_time() - start_s
    engine = VllmRecall(model, max_positions=512)
    try:
        result = worth(model, found, engine)
    finally:
        engine.close()
    planned = [{"nats": one.nats, "vectors": one.vectors, "refusal": one.refusal} for one in plans]
    return {"planned": planned, "worth": document(result), "lines": list(lines(result)), "cpu_s_of_last_run": cpu_s}


def shortest(model: FrozenModel, calibration: VectorCapacity, count: int) -> list[CramJob]:
    """The shortest clauses, with planned vectors, which stay as many as they are."""
    texts = sorted(verbatim_texts(), key=lambda text: len(tokens_of(model.tokenizer, text)))[:count]
    return [job(model, text, calibration) for text in texts]


def job(model: FrozenModel, text: str, calibration: VectorCapacity) -> CramJob:
    """One text as one chunk, from the means of its pieces."""
    ids = tokens_of(model.tokenizer, text)
    count = calibration.vectors(float(model.surprisal(ids).sum()))
    return CramJob(CramTarget(text, ids), mean_embeddings(model, ids, count), count)


def from_nowhere(model: FrozenModel, one: CramJob) -> CramJob:
    """The same job from random numbers."""
    return replace(one, start=random_vectors(model, one.target.name, len(one.start)))


def crammed(model: FrozenModel, jobs: Sequence[CramJob], settings: CramSettings) -> list[CramOutcome]:
    """Outcomes in the order of the jobs."""
    ended = {one.target: one for one in Crammer(model, jobs, settings, run.decoded_by(model)).run() if one}
    return [ended[one.target] for one in jobs]


def published(folder: Path, one: CramJob) -> CramOutcome:
    """As the published loops run: float32 weights, read anew for every text, a batch of one, no margin."""
    model = FrozenModel(folder, torch.float32)
    return crammed(model, [one], CramSettings(margin=0.0))[0]


def changed(model: FrozenModel, outcome: CramOutcome) -> CramJob | None:
    """Another version of the text, from the vectors of this one; None where no change is known."""
    text = outcome.target.name
    for old, new in CHANGES:
        if old in text:
            text = text.replace(old, new)
            return CramJob(CramTarget(text, tokens_of(model.tokenizer, text)), outcome.vectors, len(outcome.vectors))
    return None


def measured(
    cram: Callable[[], list[CramOutcome]], model: FrozenModel, *, with_changes: bool = False
) -> dict[str, Any]:
    """CPU seconds, what each text took, and which vectors survive; other versions are crammed from these vectors."""
    start_s = time.process_time()
    found = cram()
    result: dict[str, Any] = {"cpu_s": round(time.process_time() - start_s, 1), "texts": list(map(figures, found))}
    result["survivors"] = survivors(model, [one for one in found if one.accepted])
    if with_changes:
        pairs = [(changed(model, one), one) for one in found if one.accepted]
        jobs = [(new, old) for new, old in pairs if new]
        after = crammed(model, [new for new, _ in jobs], CramSettings())
        result["changed"] = [
            figures(new) | {"steps_of_former": old.steps} for new, (_, old) in zip(after, jobs, strict=True)
        ]
    return result


def figures(outcome: CramOutcome) -> dict[str, Any]:
    """What one text took."""
    return {
        "text": outcome.target.name, "tokens": len(outcome.target.ids), "vectors": len(outcome.vectors),
        "steps": outcome.steps, "accepted": outcome.accepted, "margin": round(outcome.margin, 3),
        "refused": outcome.refused,
    }  # fmt: skip


def survivors(model: FrozenModel, accepted: Sequence[CramOutcome]) -> dict[str, str]:
    """How many vectors still decode the text: as stored, as int8, and with noise of 1 and 5 % of their spread."""

    def share(change: Callable[[CramOutcome], torch.Tensor], draws: int = 1) -> str:
        held = [decodes(model, one, change(one)) for one in accepted for _ in range(draws)]
        return f"{sum(held)} of {len(held)}"

    generator = torch.Generator().manual_seed(0)

    def noisy(one: CramOutcome, size: float) -> torch.Tensor:
        return one.vectors + torch.randn(one.vectors.shape, generator=generator) * one.vectors.std() * size

    return {
        "as stored": share(lambda one: one.vectors),
        "int8": share(lambda one: Precision.INT8.as_stored(one.vectors)),
        "noise of 1 %": share(lambda one: noisy(one, 0.01), NOISE_DRAWS),
        "noise of 5 %": share(lambda one: noisy(one, 0.05), NOISE_DRAWS),
    }


def decodes(model: FrozenModel, one: CramOutcome, vectors: torch.Tensor) -> bool:
    """Whether the model says the text."""
    return greedy(model, vectors, len(one.target.ids) + 1) == [*one.target.ids, model.end_id]


def markdown(result: dict[str, Any]) -> str:
    """All sections that are there."""
    parts = ["# Texts that come back to the byte"]
    if result:
        parts.append(
            f"{result['base']}, commit {result['commit']}, {result['date']}, {result['machine']['cpu']}, one thread, "
            f"`{result['command']}`."
        )
    if found := result.get("accept"):
        parts.append("## Accepted\n\n```\n" + "\n".join(found["lines"]) + "\n```")
    rows = [(name, result[name]) for name in SECTIONS[1:] if name in result]
    if rows:
        parts.append("## The same texts in several ways\n\n" + ways(rows))
    if "together" in result and result["together"]["changed"]:
        parts.append("## Changed texts, from the former vectors\n\n" + changes(result["together"]["changed"]))
    return "\n\n".join(parts) + "\n"


def ways(rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """One line a section."""
    kinds = list(rows[0][1]["survivors"])
    lines = [["", "accepted", "mean steps", "CPU s", *(f"right {kind}" for kind in kinds)]]
    lines.append(["---"] * len(lines[0]))
    for name, one in rows:
        texts = one["texts"]
        accepted, steps = sum(t["accepted"] for t in texts), fmean(t["steps"] for t in texts)
        line = [name.replace("_", " "), f"{accepted} of {len(texts)}", f"{steps:.0f}", f"{one['cpu_s']:.0f}"]
        lines.append(line + [one["survivors"][kind] for kind in kinds])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def changes(found: Sequence[dict[str, Any]]) -> str:
    """Steps of each changed text beside those of the former one."""
    lines = [["text", "steps from nothing, before the change", "steps from the former vectors"], ["---"] * 3]
    lines += [[one["text"], str(one["steps_of_former"]), str(one["steps"])] for one in found]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
