"""Prove at start-up that edits reach the forward pass, on this engine, with this model, through the product's own path.

A probe text is captured and committed as the only edit of a set. A prompt is run without it, with it, and without it
again. Its pick is forced: routing runs as always, but the decisions of the verifier and of the gates are overruled. So
every head of every reading layer takes the edit in full, whatever the model has
learned, and the answer is copied from it. Log-probabilities must change with the probe and stay the same without it,
the attribution must give the whole answer to the edit, and the answer must be a token of its text. If one layer does
not read, the attribution shows it.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from incomes_plugin.errors import CompressionFailed, IncomesError
from incomes_plugin.gist.edit import CaptureJob
from incomes_plugin.gist.format import load_gists
from incomes_plugin.pool.snapshot import SnapshotDelta, SnapshotRef
from incomes_plugin.vllm.pin import EditScope

if TYPE_CHECKING:
    from incomes_plugin.vllm.engine import EditEngine

CANARY_SET = "incomes-canary"
_EDIT_ID = "edit_canary"
_PROBE_TOKENS = 8
_MIN_DIFF = 1e-3  # least change of the log-probabilities with the probe; numerical noise between batches stays below
_MAX_NOISE = 0.05  # bfloat16 batches of other sizes differ by about 0.02
_MAX_NONE_WEIGHT = 1e-3
_MAX_UNCOPIED = 1e-3  # probability of tokens that the probe does not have


@dataclass(frozen=True)
class CanaryReport:
    """Outcome.

    Attributes:
        max_logprob_diff: largest change the probe edit caused.
        reason: why it is not ok, else empty.
    """

    ok: bool
    max_logprob_diff: float
    reason: str


async def run_canary(engine: EditEngine) -> CanaryReport:
    """Capture, commit, generate with and without the probe, drop. Never raises an IncomesError."""
    trace = f"canary-{secrets.token_hex(8)}"
    try:
        before = await _logprobs(engine, None, trace)
        snapshot, spelled = await _commit_probe(engine)
        try:
            probed = await _logprobs(engine, snapshot, trace)
            none_weight = (await engine.attribution(trace)).none_weight
            after = await _logprobs(engine, None, trace)
        finally:
            await engine.drop(CANARY_SET)
    except IncomesError as error:
        return CanaryReport(False, 0.0, f"{error.code}: {error.message}")
    return _judge(_distance(before, probed), _distance(before, after), none_weight, _uncopied(probed, spelled))


def _judge(diff: float, noise: float, none_weight: float, uncopied: float) -> CanaryReport:
    if not noise <= _MAX_NOISE:
        return CanaryReport(False, diff, f"log-probabilities without edits moved by {noise:.3g} after the probe")
    if not diff >= max(_MIN_DIFF, 2 * noise):
        return CanaryReport(
            False, diff, f"the probe edit changed log-probabilities by only {diff:.3g}: edits are inert"
        )
    if not abs(none_weight) <= _MAX_NONE_WEIGHT:
        return CanaryReport(
            False, diff, f"{none_weight:.1%} of a forced answer did not come from the edit: a reading layer is inert"
        )
    if not uncopied <= _MAX_UNCOPIED:
        return CanaryReport(False, diff, f"{uncopied:.1%} of a forced answer was not copied from the edit")
    return CanaryReport(True, diff, "")


async def _commit_probe(engine: EditEngine) -> tuple[SnapshotRef, set[int]]:
    """The snapshot, and the tokens that can be copied."""
    (captured,) = await engine.capture([CaptureJob(_EDIT_ID, 1, tuple(_probe_text(engine)))])
    if captured.blob is None:
        raise CompressionFailed(f"the probe edit could not be captured: {captured.error}")
    snapshot = SnapshotRef.empty(CANARY_SET).advance([(_EDIT_ID, 1)], [])
    await engine.commit(SnapshotDelta(None, snapshot, (captured.blob,)))
    (gist,) = load_gists(captured.blob, engine.fingerprint)
    return snapshot, set(gist.spelling.tokens.tolist())


def _probe_text(engine: EditEngine) -> list[int]:
    """The token ids of the probe. It does not matter what they say."""
    vocabulary, length = engine.vocabulary_size, min(_PROBE_TOKENS, engine.adapter.max_edit_tokens)
    return [(vocabulary // 2 + 7 * i) % vocabulary for i in range(length)]


async def _logprobs(engine: EditEngine, snapshot: SnapshotRef | None, trace: str) -> dict[int, float]:
    from vllm import SamplingParams

    params = SamplingParams(max_tokens=1, temperature=0.0, logprobs=20, detokenize=False, ignore_eos=True)
    scope = EditScope(None, None) if snapshot is None else EditScope(CANARY_SET, snapshot, trace, force=True)
    template, text = engine.adapter.template, _probe_text(engine)
    output: Any = await engine.generate([*template.turn_prefix, *text, *template.answer_prefix], params, scope)
    if not output.outputs[0].logprobs:
        raise CompressionFailed(f"the probe prompt ended with {output.outputs[0].finish_reason}")
    return {token: entry.logprob for token, entry in output.outputs[0].logprobs[0].items()}


def _uncopied(probed: dict[int, float], spelled: set[int]) -> float:
    """Part of the likeliest tokens' probability that is not of the probe's tokens. With vLLM's `--logprobs-mode` these
    are logits, of any height."""
    top = max(probed.values())
    weights = {token: math.exp(value - top) for token, value in probed.items()}
    return sum(weight for token, weight in weights.items() if token not in spelled) / sum(weights.values())


def _distance(first: dict[int, float], second: dict[int, float]) -> float:
    """The largest difference of a token's log-probability. A token that is among the 20 likeliest only once counts with
    the log-probability at the end of that list."""
    floor = min(*first.values(), *second.values())
    return max(abs(first.get(t, floor) - second.get(t, floor)) for t in first.keys() | second.keys())
