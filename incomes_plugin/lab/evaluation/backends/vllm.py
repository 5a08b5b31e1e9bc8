"""The product's own path: vLLM with the plugin. Edits are captured in bulk, questions run as concurrent requests."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from incomes_plugin.gist.fingerprint import base_fingerprint
from incomes_plugin.lab.evaluation.backends.chat import ChatModel
from incomes_plugin.lab.evaluation.interface import Answer, Done, EvalEdit, PoolHandle, nothing
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.orphans import guard_children
from incomes_plugin.pool.snapshot import EMPTY_DIGEST, SnapshotDelta, SnapshotRef, add_to_digest

EDITS_PER_COMMIT = 512
MAX_SEQUENCES = 32
REQUESTS_AT_ONCE = 256
SPARE_BYTES = 64 << 20
_ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_NUM_THREADS": "1",  # with a thread for each core, a machine that does other work decodes many times slower
    "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "1800",  # a step of long prompts, on a machine that does other work
}
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Pool(PoolHandle):
    snapshot: SnapshotRef


class VllmGenerator(ChatModel):
    """`Generator` on an engine of its own, on an event loop that runs while it is asked.

    Args:
        adapter_dir: None = stock vLLM, which takes no edits.
        largest: the most edits that will be active at once; the pool is made for them.
        dtype: of weights and pool, as vLLM's `--dtype`.
    """

    def __init__(
        self,
        base_dir: Path,
        adapter_dir: Path | None,
        max_context_tokens: int,
        *,
        largest: Sequence[EvalEdit] = (),
        dtype: str = "auto",
    ) -> None:
        super().__init__(base_dir, max_context_tokens)
        self._dtype = dtype
        self._loop = asyncio.new_event_loop()
        self._edits: Any = None
        self._run(self._start(adapter_dir, largest))
        self.fingerprint = self._edits.fingerprint if self._edits else base_fingerprint(base_dir)

    def add(self, edits: Sequence[EvalEdit]) -> PoolHandle:
        """Capture in bulk, and commit as deltas of one snapshot."""
        return self._run(self._add(edits))

    def generate(
        self, prompts: Sequence[Sequence[int]], pool: PoolHandle | None, max_tokens: int, done: Done = nothing
    ) -> list[Answer]:
        """All prompts at once; the scheduler batches them."""
        snapshot = pool.snapshot if isinstance(pool, _Pool) and pool.num_edits else None
        return self._run(self._answers(prompts, snapshot, max_tokens, done))

    def release(self, pool: PoolHandle) -> None:
        """Give the pool's memory back."""
        if isinstance(pool, _Pool) and pool.num_edits:
            self._run(self._edits.drop(pool.snapshot.edit_set))

    def sibling(self, base_dir: Path) -> VllmGenerator:
        """See `Generator`."""
        return VllmGenerator(base_dir, None, self.max_context_tokens, dtype=self._dtype)

    def close(self) -> None:
        """Stop the engine."""
        self._llm.shutdown()
        self._run(asyncio.sleep(0))  # the cancelled output handler ends
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self._loop.run_until_complete(work)

    async def _start(self, adapter_dir: Path | None, largest: Sequence[EvalEdit]) -> None:
        os.environ.update({name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()})
        logging.getLogger("vllm").setLevel(logging.ERROR)
        from incomes_plugin.vllm.launcher import prepare_environment

        guard_children()
        prepare_environment()
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        from incomes_plugin.vllm.engine import EditEngine

        args = AsyncEngineArgs(
            model=str(self.base_dir),
            dtype=self._dtype,  # type: ignore[arg-type]
            enforce_eager=True,
            max_model_len=self.max_context_tokens,
            max_num_seqs=MAX_SEQUENCES,
            disable_log_stats=True,
            distributed_executor_backend="uni",
            **self._with_edits(adapter_dir, largest),
        )
        self._llm = AsyncLLM.from_engine_args(args)
        if adapter_dir is not None:
            self._edits = await EditEngine.attach(self._llm, self.base_dir, adapter_dir)

    def _with_edits(self, adapter_dir: Path | None, largest: Sequence[EvalEdit]) -> dict[str, Any]:
        """Engine arguments that bring the selection layer, with a pool that holds `largest` twice."""
        if adapter_dir is None:
            return {}
        from incomes_plugin.vllm.config import WORKER_CLS, PluginConfig

        adapter = EditAdapter.load(adapter_dir)
        route_bytes = 4 * adapter.router.key.out_features
        tokens = sum(len(self.edit_ids(edit.text)) for edit in largest)
        pool_bytes = 2 * tokens * (adapter.shape.room_per_token + 2 * route_bytes) + SPARE_BYTES
        return {"worker_cls": WORKER_CLS, "additional_config": PluginConfig(adapter_dir, pool_bytes).added_to(None)}

    async def _add(self, edits: Sequence[EvalEdit]) -> PoolHandle:
        name, digest, base = f"eval-{secrets.token_hex(6)}", EMPTY_DIGEST, None
        snapshot = SnapshotRef(name, 0, digest, 0)
        refused: list[int] = []
        num_bytes = 0
        for start in range(0, len(edits), EDITS_PER_COMMIT):
            captured = await self._capture(edits[start : start + EDITS_PER_COMMIT])
            refused += [index for index, blob in captured if blob is None]
            blobs = {index: blob for index, blob in captured if blob is not None}
            num_bytes += sum(map(len, blobs.values()))
            for index in blobs:
                digest = add_to_digest(digest, str(index), 1)
            if blobs:
                snapshot = SnapshotRef(name, snapshot.version + 1, digest, snapshot.num_edits + len(blobs))
                await self._edits.commit(SnapshotDelta(base, snapshot, tuple(blobs.values())))
                base = snapshot.id
        return _Pool(snapshot.num_edits, tuple(refused), num_bytes, snapshot)

    async def _capture(self, edits: Sequence[EvalEdit]) -> list[tuple[int, bytes | None]]:
        """Index and blob of each edit; None where the model refuses it."""
        from incomes_plugin.vllm.engine import CaptureJob

        jobs = [CaptureJob(str(edit.index), 1, self.edit_ids(edit.text)) for edit in edits]
        return [(int(one.edit_id), one.blob) for one in await self._edits.capture(jobs)]

    async def _answers(
        self, prompts: Sequence[Sequence[int]], snapshot: SnapshotRef | None, max_tokens: int, done: Done
    ) -> list[Answer]:
        room, num_done = asyncio.Semaphore(REQUESTS_AT_ONCE), 0

        async def one(prompt: Sequence[int]) -> Answer:
            nonlocal num_done
            async with room:
                answer = await self._answer(prompt, snapshot, max_tokens)
            num_done += 1
            done(num_done)
            return answer

        return list(await asyncio.gather(*map(one, prompts)))

    async def _answer(self, prompt: Sequence[int], snapshot: SnapshotRef | None, max_tokens: int) -> Answer:
        from vllm import SamplingParams

        trace = f"eval-{secrets.token_hex(8)}" if snapshot else None
        params = SamplingParams(max_tokens=max_tokens, temperature=0.0)
        output = await self._generate(prompt, params, snapshot, trace)
        tokens = tuple(token for token in output.token_ids if token not in self.stop_ids)
        applied = await self._applied(trace) if trace else ()
        return Answer(output.text.strip(), tokens, applied, len(prompt))

    async def _generate(
        self, prompt: Sequence[int], params: Any, snapshot: SnapshotRef | None, trace: str | None
    ) -> Any:
        """vLLM's completion."""
        if self._edits is None:
            from vllm.inputs.engine import tokens_input

            updates = self._llm.generate(tokens_input(list(prompt)), params, f"eval-{secrets.token_hex(8)}")
            return [update async for update in updates][-1].outputs[0]
        from incomes_plugin.vllm.pin import EditScope

        scope = EditScope(snapshot.edit_set, snapshot, trace) if snapshot else EditScope(None, None)
        return (await self._edits.generate(prompt, params, scope)).outputs[0]

    async def _applied(self, trace: str) -> tuple[int, ...]:
        """Indices of the edits that were read, the heaviest first."""
        applied = (await self._edits.attribution(trace)).applied
        return tuple(int(edit_id) for edit_id, _, _ in sorted(applied, key=lambda edit: -edit[2]))
