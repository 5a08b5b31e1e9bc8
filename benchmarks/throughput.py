"""Tokens/s of whole batches, of decoding alone, and time to first token, with 0 … 10,000 edits, as ratios to stock vLLM
on the same base.

Every round runs all variants once, in rotated order, on the same fresh prompts; a ratio compares within its round.
Checks on the way: a request that reads nothing has stock's tokens, one that reads edits has not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.engines import EngineProcess, Generated, Prompts
from benchmarks.questions import fact_set
from benchmarks.stats import ratios, summary


@dataclass(frozen=True)
class Workload:
    """What one run generates.

    Attributes:
        edit_tokens: of each random edit.
    """

    rounds: int = 5
    batch: int = 8
    prompt_tokens: int = 64
    output_tokens: int = 32
    ttft_prompt_tokens: int = 128
    edit_tokens: int = 14


@dataclass(frozen=True)
class Variant:
    """A row of the table.

    Attributes:
        edits: active ones; None is stock vLLM.
        reads: edits that every request reads: none though it looks for some, what its question asks for among real
            ones, or as many as it may.
    """

    edits: int | None
    reads: Literal["none", "asked", "most"] = "none"

    @property
    def name(self) -> str:
        """Key in the results file."""
        ending = {"none": "", "asked": "_asked", "most": "_read"}[self.reads]
        return "stock" if self.edits is None else f"edits_{self.edits}{ending}"

    @property
    def edit_set(self) -> str | None:
        """Name of its edit set; none without edits."""
        if not self.edits:
            return None
        return fact_set(self.edits) if self.reads == "asked" else self.name

    @property
    def engine(self) -> str:
        """Which engine runs it: `stock`, `silent`, `asking` or `reading`."""
        return "stock" if self.edits is None else {"none": "silent", "asked": "asking", "most": "reading"}[self.reads]


STOCK = Variant(None)


class Unfaithful(Exception):
    """An engine did not do what its variant says; its speed means nothing."""


def measure(
    engines: Mapping[str, EngineProcess],
    variants: Sequence[Variant],
    work: Workload,
    ask: Callable[[int, int], list[int]],
    progress: Callable[[str], None],
) -> dict[str, dict[str, object]]:
    """Run all variants.

    Args:
        engines: by `Variant.engine`; `asking` has the facts in it.
        ask: a prompt that asks for the fact with a number, of so many tokens.

    Raises:
        Unfaithful: tokens differ from stock's where nothing is read, or do not where edits are.
    """
    for variant in variants:
        if variant.edits and variant.reads != "asked":
            engines[variant.engine].commit_random(variant.name, variant.edits, work.edit_tokens)
    columns = (STOCK, *variants)
    speed: dict[str, list[float]] = {v.name: [] for v in columns}
    decoding: dict[str, list[float]] = {v.name: [] for v in columns}
    ttft: dict[str, list[float]] = {v.name: [] for v in columns}
    differs: dict[str, bool] = {v.name: False for v in variants}
    for turn in range(-1, work.rounds):
        tokens, fresh = {}, range((turn + 1) * (work.batch + 1), (turn + 2) * (work.batch + 1))
        prompts = [ask(number, work.prompt_tokens) for number in fresh[:-1]]
        alone = [ask(fresh[-1], work.ttft_prompt_tokens)]
        for variant in rotate(columns, turn):
            batch, first = run(engines[variant.engine], variant, work, prompts, alone)
            tokens[variant.name] = batch.token_ids
            if turn >= 0:
                speed[variant.name].append(work.batch * work.output_tokens / batch.seconds)
                decoding[variant.name].append(decoded_per_s(batch, work))
                ttft[variant.name].append(first.first_token_s[0])
        for variant in variants:
            differs[variant.name] |= tokens[variant.name] != tokens["stock"]
        progress(f"throughput: round {max(turn, 0) + (turn >= 0)} of {work.rounds}")
    check(variants, differs)
    return {v.name: column(v, speed, decoding, ttft) for v in columns}


def run(
    engine: EngineProcess, variant: Variant, work: Workload, prompts: Prompts, alone: Prompts
) -> tuple[Generated, Generated]:
    """One batch for throughput and one lone prompt for the time to first token."""
    batch = engine.generate(prompts, work.output_tokens, variant.edit_set)
    return batch, engine.generate(alone, 1, variant.edit_set)


def decoded_per_s(batch: Generated, work: Workload) -> float:
    """Output tokens a second after the last request's first one: steps that hold no prompt."""
    return work.batch * (work.output_tokens - 1) / (batch.seconds - max(batch.first_token_s))


def rotate(columns: Sequence[Variant], turn: int) -> list[Variant]:
    """Start each round with another variant."""
    shift = turn % len(columns)
    return [*columns[shift:], *columns[:shift]]


def check(variants: Sequence[Variant], differs: dict[str, bool]) -> None:
    """Hold every variant to its promise."""
    for variant in variants:
        if differs[variant.name] != (variant.reads != "none" and bool(variant.edits)):
            state = "differ from" if differs[variant.name] else "equal"
            raise Unfaithful(f"{variant.name}: its tokens {state} those of stock vLLM")


def column(
    variant: Variant, speed: dict[str, list[float]], decoding: dict[str, list[float]], ttft: dict[str, list[float]]
) -> dict[str, object]:
    """Figures of one variant."""
    own_speed, own_decoding, own_ttft = speed[variant.name], decoding[variant.name], ttft[variant.name]
    return {
        "edits": variant.edits,
        "reads": variant.reads,
        "output_tokens_per_s": summary(own_speed),
        "throughput_ratio": summary(ratios(own_speed, speed["stock"])),
        "decoded_tokens_per_s": summary(own_decoding),
        "decoding_ratio": summary(ratios(own_decoding, decoding["stock"])),
        "ttft_ms": summary([1000 * s for s in own_ttft], 1),
        "ttft_ratio": summary(ratios(own_ttft, ttft["stock"])),
    }
