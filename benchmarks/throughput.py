"""Tokens/s and time to first token with 0 … 10,000 edits, as ratios to stock vLLM on the same model.

Every round runs all variants once, in rotated order, on the same fresh prompts; a ratio compares within its round.
Checks on the way: without edits the tokens equal stock's, with edits they do not (the selection really ran). With a
router the share of tokens that read is counted afterwards, on the very tokens of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.engines import EngineProcess, Generated
from benchmarks.gate import Gate
from benchmarks.model import prompt, random_gists
from benchmarks.stats import ratios, summary


@dataclass(frozen=True)
class Workload:
    """What one run generates."""

    rounds: int = 5
    batch: int = 8
    prompt_tokens: int = 64
    output_tokens: int = 32
    ttft_prompt_tokens: int = 128


@dataclass(frozen=True)
class Variant:
    """A column of the table: `edits` of `gists` gist tokens each; edits=None is stock vLLM.

    Attributes:
        loud: with a router every token reads, else about one in eight.
    """

    edits: int | None
    gists: int = 1
    loud: bool = False

    @property
    def name(self) -> str:
        """Key in the results file and name of the edit set."""
        loud = "_loud" if self.loud else ""
        return "stock" if self.edits is None else f"edits_{self.edits}_gists_{self.gists}{loud}"


STOCK = Variant(None)


class Unfaithful(Exception):
    """An engine did not do what its variant says; its speed means nothing."""


def measure(
    stock: EngineProcess,
    edited: EngineProcess,
    variants: Sequence[Variant],
    work: Workload,
    gate: Gate | None,
    progress: Callable[[str], None],
) -> dict[str, dict[str, object]]:
    """Run all variants.

    Args:
        gate: of a model with a router.

    Raises:
        Unfaithful: the tokens of the edit engine without edits differ from stock's, or those with edits do not.
    """
    for variant in variants:
        if variant.edits:
            edited.commit_random(variant.name, variant.edits, variant.gists, variant.loud)
    columns = (STOCK, *variants)
    speed: dict[str, list[float]] = {v.name: [] for v in columns}
    ttft: dict[str, list[float]] = {v.name: [] for v in columns}
    said: dict[str, list[list[int]]] = {v.name: [] for v in columns}
    differs: dict[str, bool] = {v.name: False for v in variants}
    for turn in range(-1, work.rounds):
        tokens = {}
        for variant in rotate(columns, turn):
            engine = stock if variant.edits is None else edited
            batch, first = run(engine, variant, work, turn)
            tokens[variant.name] = batch.token_ids
            if turn >= 0:
                speed[variant.name].append(work.batch * work.output_tokens / batch.seconds)
                ttft[variant.name].append(first.first_token_s[0])
                said[variant.name] += batch.token_ids
        for variant in variants:
            differs[variant.name] |= tokens[variant.name] != tokens["stock"]
        progress(f"throughput: round {max(turn, 0) + (turn >= 0)} of {work.rounds}")
    check(variants, differs)
    found = {v.name: column(v, speed, ttft) for v in columns}
    for variant in variants if gate else ():
        if gate and variant.edits:
            found[variant.name]["share_reading"] = shares(gate, variant, work, said[variant.name])
            progress(f"throughput: {variant.name}: tokens that read counted")
    return found


def run(engine: EngineProcess, variant: Variant, work: Workload, turn: int) -> tuple[Generated, Generated]:
    """One batch for throughput and one lone prompt for the time to first token."""
    edit_set = variant.name if variant.edits else None
    seed, prompts = 1000 * (turn + 2), prompts_of(turn, work)
    batch = engine.generate(prompts, work.output_tokens, edit_set)
    return batch, engine.generate([prompt(seed + 999, work.ttft_prompt_tokens)], 1, edit_set)


def prompts_of(turn: int, work: Workload) -> list[list[int]]:
    """Fresh prompts for every round."""
    return [prompt(1000 * (turn + 2) + i, work.prompt_tokens) for i in range(work.batch)]


def shares(gate: Gate, variant: Variant, work: Workload, said: list[list[int]]) -> dict[str, float]:
    """Shares of the prompts' and of the answers' tokens that read, over all rounds."""
    prompts = [ids for turn in range(work.rounds) for ids in prompts_of(turn, work)]
    gists = random_gists(gate.shape, variant.edits or 0, variant.gists, variant.name, loud=variant.loud)
    texts = [asked + answer[:-1] for asked, answer in zip(prompts, said, strict=True)]  # the last is not run
    opened = gate.opened(gists, texts).view(len(texts), -1).float()
    asked, answered = opened[:, : work.prompt_tokens], opened[:, work.prompt_tokens :]
    return {"prompt": round(float(asked.mean()), 3), "answer": round(float(answered.mean()), 3)}


def rotate(columns: Sequence[Variant], turn: int) -> list[Variant]:
    """Start each round with another variant."""
    shift = turn % len(columns)
    return [*columns[shift:], *columns[:shift]]


def check(variants: Sequence[Variant], differs: dict[str, bool]) -> None:
    """Hold every variant to its promise."""
    for variant in variants:
        if differs[variant.name] != bool(variant.edits):
            state = "differ from" if differs[variant.name] else "equal"
            raise Unfaithful(f"{variant.name}: its tokens {state} those of stock vLLM")


def column(variant: Variant, speed: dict[str, list[float]], ttft: dict[str, list[float]]) -> dict[str, object]:
    """Figures of one variant."""
    own_speed, own_ttft = speed[variant.name], ttft[variant.name]
    return {
        "edits": variant.edits,
        "gists_per_edit": variant.gists if variant.edits else 0,
        "output_tokens_per_s": summary(own_speed),
        "throughput_ratio": summary(ratios(own_speed, speed["stock"])),
        "ttft_ms": summary([1000 * s for s in own_ttft], 1),
        "ttft_ratio": summary(ratios(own_ttft, ttft["stock"])),
    }
