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
        """Fill `edit_set` with random gists."""
        made = random_gists(self.edits.adapter.shape, edits, tokens, edit_set)
        for _ in range(0, edits, COMMIT_CHUNK):
            chunk = list(itertools.islice(made, COMMIT_CHUNK))
            ids = [(gist.edit_id, gist.version) for gist in chunk]
            await self._commit(edit_set, ids, (dump_gists(chunk, self.edits.fingerprint),))

    async def commit_facts(self, texts: Prompts, edit_sets: dict[str, int]) -> None:
        """Capture edits, and fill each edit set with so many, from the first one on."""
        for start in range(0, len(texts), COMMIT_CHUNK):
            captured = await self._captured(texts[start : start + COMMIT_CHUNK])
            for edit_set, count in edit_sets.items():
                own = captured[: max(0, count - start)]
                if own:
                    ids = [(edit_id, 1) for edit_id, _ in own]
                    await self._commit(edit_set, ids, tuple(blob for _, blob in own))

    async def _commit(self, edit_set: str, ids: list[tuple[str, int]], blobs: tuple[bytes, ...]) -> None:
        base = self.snapshots.get(edit_set)
        digest, version, there = (base.digest, base.version, base.num_edits) if base else (EMPTY_DIGEST, 0, 0)
        for edit_id, own_version in ids:
            digest = add_to_digest(digest, edit_id, own_version)
        snapshot = SnapshotRef(edit_set, version + 1, digest, there + len(ids))
        await self.edits.commit(SnapshotDelta(base.id if base else None, snapshot, blobs))
        self.snapshots[edit_set] = snapshot

    async def capture(self, texts: Prompts) -> float:
        """Compress all texts in one call; seconds."""
        start_s = timer()
        await self._captured(texts)
        return timer() - start_s

    async def _captured(self, texts: Prompts) -> list[tuple[str, bytes]]:
        """Ids and gists of compressed texts.

        Raises:
            RuntimeError: an edit could not be compressed.
        """
        from incomes_plugin.vllm.engine import CaptureJob

        jobs = [CaptureJob(next(self.ids), 1, tuple(text)) for text in texts]
        captured = await self.edits.capture(jobs)
        failed = [c.error for c in captured if c.blob is None]
        if failed or len(captured) != len(jobs):
            raise RuntimeError(f"{len(failed)} captures failed: {failed[:1]}")
        return [(job.edit_id, c.blob) for job, c in zip(jobs, captured, strict=True) if c.blob is not None]

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
