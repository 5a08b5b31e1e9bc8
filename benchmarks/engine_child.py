"""Inside the engine process: AsyncLLM, and on top of it the edit engine where the spec asks for one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any, Self

from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.inputs.engine import tokens_input
from vllm.v1.engine.async_llm import AsyncLLM

from benchmarks.adapters import random_gists
from benchmarks.engines import EngineSpec, Generated, Prompts, timer
from incomes_plugin.gist import dump_gists
from incomes_plugin.pool.snapshot import EMPTY_DIGEST, SnapshotDelta, SnapshotRef, add_to_digest

COMMIT_CHUNK = 1000


class Child:
    """The engine and the commands the parent may send."""

    def __init__(self, spec: EngineSpec, llm: AsyncLLM, edits: Any) -> None:
        self.spec = spec
        self.llm = llm
        self.edits = edits
        self.snapshots: dict[str, SnapshotRef] = {}
        self.ids = (f"bench-{i}" for i in itertools.count())

    @classmethod
    async def start(cls, spec: EngineSpec) -> Self:
        """Load the model, and attach the edit engine where the spec has edits."""
        args = AsyncEngineArgs(
            model=str(spec.base),
            dtype="bfloat16",
            enforce_eager=True,
            max_model_len=spec.max_model_len,
            max_num_seqs=spec.max_num_seqs,
            distributed_executor_backend="uni",
            disable_log_stats=True,
        )
        if spec.adapter is None:
            return cls(spec, AsyncLLM.from_engine_args(args), None)
        from incomes_plugin.vllm.config import WORKER_CLS, PluginConfig
        from incomes_plugin.vllm.engine import EditEngine

        args.worker_cls = WORKER_CLS
        args.additional_config = PluginConfig(spec.adapter, spec.pool_bytes).added_to(None)
        llm = AsyncLLM.from_engine_args(args)
        return cls(spec, llm, await EditEngine.attach(llm, spec.base, spec.adapter))

    def close(self) -> None:
        """Stop the engine core."""
        self.llm.shutdown()

    async def generate(self, prompts: Prompts, max_tokens: int, edit_set: str | None) -> Generated:
        """All prompts at once, greedily, to `max_tokens`."""
        start_s = timer()
        rows = await asyncio.gather(*(self._one(prompt, max_tokens, edit_set) for prompt in prompts))
        return Generated(timer() - start_s, [first - start_s for first, _ in rows], [ids for _, ids in rows])

    async def commit_random(self, edit_set: str, edits: int, tokens: int) -> None:
        """Fill `edit_set` with random gists, in a chain of deltas."""
        shape, digest, base = self.edits.adapter.shape, EMPTY_DIGEST, None
        made = random_gists(shape, edits, tokens, edit_set)
        for start in range(0, edits, COMMIT_CHUNK):
            chunk = list(itertools.islice(made, COMMIT_CHUNK))
            for gist in chunk:
                digest = add_to_digest(digest, gist.edit_id, gist.version)
            snapshot = SnapshotRef(edit_set, start // COMMIT_CHUNK + 1, digest, start + len(chunk))
            blob = dump_gists(chunk, self.edits.fingerprint)
            await self.edits.commit(SnapshotDelta(base.id if base else None, snapshot, (blob,)))
            self.snapshots[edit_set] = base = snapshot

    async def capture(self, texts: Prompts) -> float:
        """Compress all texts in one call; seconds.

        Raises:
            RuntimeError: an edit could not be compressed.
        """
        from incomes_plugin.vllm.engine import CaptureJob

        jobs = [CaptureJob(next(self.ids), 1, tuple(text)) for text in texts]
        start_s = timer()
        captured = await self.edits.capture(jobs)
        seconds = timer() - start_s
        failed = [c.error for c in captured if c.blob is None]
        if failed or len(captured) != len(jobs):
            raise RuntimeError(f"{len(failed)} captures failed: {failed[:1]}")
        return seconds

    async def _one(self, prompt: list[int], max_tokens: int, edit_set: str | None) -> tuple[float, list[int]]:
        params = SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
        first_s, ids = 0.0, []
        with self._scope(edit_set):
            async for output in self.llm.generate(tokens_input(prompt), params, next(self.ids)):
                first_s = first_s or timer()
                ids = list(output.outputs[0].token_ids)
        return first_s, ids

    def _scope(self, edit_set: str | None) -> contextlib.AbstractContextManager[None]:
        if self.spec.adapter is None:
            return contextlib.nullcontext()
        from incomes_plugin.vllm.pin import EditScope, use_scope

        return use_scope(EditScope(edit_set, self.snapshots[edit_set] if edit_set else None))
