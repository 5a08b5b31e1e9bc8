"""Prove at start-up that edits reach the forward pass, on this engine, with this model, through the product's own path.

A probe text is captured, and a probe edit made whose keys equal the zero-gist's: every token then picks it with weight
1/2, whatever the model learned. With a router two probe edits lie far out in opposite directions: every token picks one
of them. The values are the captured ones. Log-probabilities must differ with the probe and must not without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from incomes_plugin.errors import CompressionFailed, IncomesError
from incomes_plugin.gist import Gist, dump_gists, load_gists
from incomes_plugin.pool.snapshot import EMPTY_DIGEST, SnapshotDelta, SnapshotRef, add_to_digest

if TYPE_CHECKING:
    from incomes_plugin.vllm.engine import EditEngine

CANARY_SET = "incomes-canary"
_EDIT_ID = "edit_canary"
_MIN_DIFF = 1e-3  # of the log-probabilities with the probe; numerical noise between batches stays below
_FAR = 1000.0
_MAX_NOISE = 0.05  # bfloat16 batches of other sizes differ by about 0.02


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
    try:
        before = await _logprobs(engine, None)
        snapshot = await _commit_probe(engine)
        try:
            probed = await _logprobs(engine, snapshot)
            after = await _logprobs(engine, None)
        finally:
            await engine.drop(CANARY_SET)
    except IncomesError as error:
        return CanaryReport(False, 0.0, f"{error.code}: {error.message}")
    diff, noise = _distance(before, probed), _distance(before, after)
    if noise > _MAX_NOISE:
        return CanaryReport(False, diff, f"log-probabilities without edits moved by {noise:.3g} after the probe")
    if diff < max(_MIN_DIFF, 2 * noise):
        return CanaryReport(
            False, diff, f"the probe edit changed log-probabilities by only {diff:.3g}: edits are inert"
        )
    return CanaryReport(True, diff, "")


async def _commit_probe(engine: EditEngine) -> SnapshotRef:
    from incomes_plugin.vllm.engine import CaptureJob

    adapter = engine.adapter
    (captured,) = await engine.capture([CaptureJob(_EDIT_ID, 1, tuple(_probe_text(engine)))])
    if captured.blob is None:
        raise CompressionFailed(f"the probe edit could not be captured: {captured.error}")
    (gist,) = load_gists(captured.blob, engine.fingerprint)
    keys = adapter.zero_keys[:, None].to(gist.keys.dtype).expand_as(gist.keys).contiguous()
    size = gist.values.float().pow(2).mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    values = (gist.values.float() / size).to(gist.values.dtype)
    probes = [Gist(_EDIT_ID, 1, keys, values)]
    if adapter.router is not None:
        probes = [Gist(_EDIT_ID, v, _far_out(keys, sign), values.clone()) for v, sign in ((1, 1.0), (2, -1.0))]
    digest = EMPTY_DIGEST
    for probe in probes:
        digest = add_to_digest(digest, probe.edit_id, probe.version)
    snapshot = SnapshotRef(CANARY_SET, 1, digest, len(probes))
    await engine.commit(SnapshotDelta(None, snapshot, (dump_gists(probes, engine.fingerprint),)))
    return snapshot


def _far_out(keys: torch.Tensor, sign: float) -> torch.Tensor:
    """The probe with all keys of the first gist layer far out in a fixed direction, or in the opposite one."""
    direction = torch.sin(torch.arange(keys[0, 0].numel(), dtype=torch.float32)).view_as(keys[0, 0])
    probe = keys.clone()
    probe[0] = (sign * _FAR * direction).to(keys.dtype)
    return probe


def _probe_text(engine: EditEngine) -> list[int]:
    """Some ordinary token ids: the text's content does not matter."""
    first = max(engine.adapter.gist_token_ids) + 1
    vocabulary = engine.vocabulary_size
    return [(first + 7 * i) % vocabulary for i in range(min(8, engine.adapter.max_edit_tokens))]


async def _logprobs(engine: EditEngine, snapshot: SnapshotRef | None) -> dict[int, float]:
    from vllm import SamplingParams

    from incomes_plugin.vllm.pin import EditScope

    params = SamplingParams(max_tokens=1, temperature=0.0, logprobs=20, detokenize=False, ignore_eos=True)
    scope = EditScope(None if snapshot is None else CANARY_SET, snapshot)
    output: Any = await engine.generate(_probe_text(engine), params, scope)
    return {token: entry.logprob for token, entry in output.outputs[0].logprobs[0].items()}


def _distance(first: dict[int, float], second: dict[int, float]) -> float:
    """Largest difference among shared tokens; tokens that left the top 20 count with the gap at its end."""
    floor = min(*first.values(), *second.values())
    return max(abs(first.get(t, floor) - second.get(t, floor)) for t in first.keys() | second.keys())
