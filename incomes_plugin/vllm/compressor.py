"""Compressor: edit text -> gist, by prefill on the serving engine. Used by `EditEngine.capture`.

in: token ids of edit texts; out: for each a blob with one gist, or the reason why there is none. Each text is spelled
here (`gist/spelling.py`) and runs through the engine as a prompt of its own, in the base's template; vLLM's scheduler
batches them. The engine's workers make the gists meanwhile (`captures.py`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from incomes_plugin.errors import CompressionFailed, EditTooLong, EngineLost, IncomesError
from incomes_plugin.gist.edit import Captured, CaptureJob
from incomes_plugin.gist.spelling import Spelling
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.vllm.pin import use_capture
from incomes_plugin.vllm.rows import RequestTag
from incomes_plugin.vllm.wire import RpcAnswer, unpack_captures, unpack_compared

if TYPE_CHECKING:
    from vllm import SamplingParams


_COMPARED_AT_ONCE = 8
"""New edits that one call compares with others; requests take steps between two calls."""


class Compressor:
    """See the module docstring.

    Args:
        adapter: the model's edit adapter.
        spell: makes the spelling of an edit of its token ids; called in a thread.
        run: runs a prompt to its end on the engine; returns vLLM's final `RequestOutput`.
        call: collective RPC; returns the answer of the ranks.
    """

    def __init__(
        self,
        adapter: EditAdapter,
        spell: Callable[[Sequence[int]], Spelling],
        run: Callable[[Sequence[int], SamplingParams], Awaitable[Any]],
        call: Callable[..., Awaitable[RpcAnswer]],
    ) -> None:
        self._adapter = adapter
        self._spell = spell
        self._run = run
        self._call = call

    async def capture(self, jobs: Sequence[CaptureJob]) -> list[Captured]:
        """One result per job, in order. Raises EngineLost."""
        names = [f"capture-{secrets.token_hex(8)}" for _ in jobs]
        failures = await asyncio.gather(*(self._prefill(job, name) for job, name in zip(jobs, names, strict=True)))
        done = [(job, name) for job, name, failure in zip(jobs, names, failures, strict=True) if failure is None]
        wanted = await asyncio.to_thread(lambda: [self._wanted(job, name) for job, name in done])
        taken = iter(unpack_captures(await self._call("incomes_take_captures", wanted)) if wanted else [])
        return [
            next(taken) if failure is None else Captured(*job.edit, None, failure)
            for job, failure in zip(jobs, failures, strict=True)
        ]

    async def compare(self, edit_set: str, new: Sequence[Captured], others: Sequence[bytes]) -> list[Captured]:
        """See `EditEngine.compare`."""
        told: list[Captured] = []
        for start in range(0, len(new), _COMPARED_AT_ONCE):
            part = new[start : start + _COMPARED_AT_ONCE]
            blobs, before = ([each.blob for each in some if each.blob] for some in (part, new[:start]))
            answers = unpack_compared(await self._call("incomes_compare", edit_set, blobs, [*others, *before]))
            told += [replace(each, compared=answer) for each, answer in zip(part, answers, strict=True)]
        return told

    async def _prefill(self, job: CaptureJob, name: str) -> str | None:
        """Run a capture prompt; the reason why it could not be captured, or None."""
        from vllm import SamplingParams

        try:
            ids = self._prompt(job)
            first = len(self._adapter.template.edit_prefix)
            with use_capture(RequestTag(capture=name, first=first, count=len(job.token_ids))):
                output = await self._run(ids, SamplingParams(max_tokens=1, temperature=0.0, detokenize=False))
        except EngineLost:
            raise
        except (IncomesError, ValueError) as error:
            return str(error)
        reason = output.outputs[0].finish_reason
        return None if reason in ("length", "stop") else f"prefill of {job.edit_id} ended with {reason}"

    def _wanted(self, job: CaptureJob, name: str) -> list[Any]:
        """What the workers have to know of a finished capture. The spelling goes with it and not with the request: vLLM
        prints the parameters of requests when an engine crashes."""
        spelled = list(chain.from_iterable(self._spell(job.token_ids).rows))
        return [name, job.edit_id, job.version, job.kind == "verbatim", spelled]

    def _prompt(self, job: CaptureJob) -> list[int]:
        if not job.token_ids:
            raise CompressionFailed(f"{job.edit_id} has no tokens")
        if len(job.token_ids) > self._adapter.max_edit_tokens:
            raise EditTooLong(
                f"{job.edit_id} has {len(job.token_ids)} tokens, the limit is {self._adapter.max_edit_tokens}"
            )
        return self._adapter.template.capture_ids(job.token_ids)
