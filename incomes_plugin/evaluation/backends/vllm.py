"""The product's own path: vLLM with the plugin. Edits are captured in bulk, questions run as concurrent requests."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Collection, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from incomes_plugin.evaluation.backends.chat import ChatModel
from incomes_plugin.evaluation.interface import Answer, EditText, PoolHandle
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.pool.snapshot import EMPTY_DIGEST, SnapshotDelta, SnapshotRef, add_to_digest

EDITS_PER_COMMIT = 512
MAX_SEQUENCES = 64
SPARE_GISTS = 8192
_QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Pool(PoolHandle):
    snapshot: SnapshotRef


class VllmGenerator(ChatModel):
    """`Generator` on an engine of its own, on an event loop that runs while it is asked.

    Args:
        largest: the most edits that will be active at once; the pool is made for them.
        dtype: of weights and pool, as vLLM's `--dtype`.
    """

    def __init__(self, model_dir: Path, max_context_tokens: int, *, largest: Sequence[EditText], dtype: str) -> None:
        super().__init__(model_dir, max_context_tokens)
        self._loop = asyncio.new_event_loop()
        self._run(self._start(self._room(largest), dtype))
        self.fingerprint = self._edits.fingerprint

    def add(self, edits: Sequence[EditText]) -> PoolHandle:
        """Capture in bulk, and commit as deltas of one snapshot."""
        return self._run(self._add(edits))

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        pool: PoolHandle | None,
        max_tokens: int,
        *,
        traced: Collection[int] = (),
    ) -> list[Answer]:
        """All prompts at once; the scheduler batches them."""
        snapshot = pool.snapshot if isinstance(pool, _Pool) and pool.num_edits else None
        places = frozenset(traced) if snapshot else frozenset()
        return self._run(self._answers(prompts, snapshot, max_tokens, places))

    def release(self, pool: PoolHandle) -> None:
        """Give the pool's pages back."""
        if isinstance(pool, _Pool) and pool.num_edits:
            self._run(self._edits.drop(pool.snapshot.edit_set))

    def close(self) -> None:
        """Stop the engine."""
        self._llm.shutdown()
        self._run(asyncio.sleep(0))  # the cancelled output handler ends
        self._loop.close()

    def _room(self, edits: Sequence[EditText]) -> int:
        """Gist entries that `edits` take, and room for the pages that a commit copies."""
        adapter = EditAdapter.load(self.model_dir)
        gists = sum(adapter.num_gists(len(self.text_ids(edit.text))) for edit in edits)
        return gists + gists // 8 + SPARE_GISTS

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self._loop.run_until_complete(work)

    async def _start(self, pool_gists: int, dtype: Any) -> None:
        os.environ.update({name: os.environ.get(name, value) for name, value in _QUIET.items()})
        logging.getLogger("vllm").setLevel(logging.ERROR)
        from incomes_plugin.vllm.launcher import prepare_environment

        prepare_environment()
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        from incomes_plugin.vllm.config import WORKER_CLS
        from incomes_plugin.vllm.engine import EditEngine

        args = AsyncEngineArgs(
            model=str(self.model_dir),
            dtype=dtype,
            enforce_eager=True,
            max_model_len=self.max_context_tokens,
            max_num_seqs=MAX_SEQUENCES,
            disable_log_stats=True,
            distributed_executor_backend="uni",
            worker_cls=WORKER_CLS,
            additional_config={"incomes": {"pool_gists": pool_gists}},
        )
        self._llm = AsyncLLM.from_engine_args(args)
        self._edits = await EditEngine.attach(self._llm, self.model_dir)

    async def _add(self, edits: Sequence[EditText]) -> PoolHandle:
        name, digest, base = f"eval-{secrets.token_hex(6)}", EMPTY_DIGEST, None
        snapshot = SnapshotRef(name, 0, digest, 0)
        refused: list[int] = []
        num_gists = 0
        for start in range(0, len(edits), EDITS_PER_COMMIT):
            chunk = edits[start : start + EDITS_PER_COMMIT]
            blobs, gists, failed = await self._capture(chunk)
            refused += failed
            num_gists += gists
            for edit in chunk:
                if edit.index not in failed:
                    digest = add_to_digest(digest, str(edit.index), 1)
            if blobs:
                snapshot = SnapshotRef(name, snapshot.version + 1, digest, snapshot.num_edits + len(blobs))
                await self._edits.commit(SnapshotDelta(base, snapshot, tuple(blobs)))
                base = snapshot.id
        per_gist = self._edits.adapter.shape.bytes_per_gist(self._llm.vllm_config.model_config.dtype)  # type: ignore[arg-type]
        return _Pool(snapshot.num_edits, tuple(refused), num_gists * per_gist, snapshot)

    async def _capture(self, edits: Sequence[EditText]) -> tuple[list[bytes], int, set[int]]:
        """Blobs, how many gists they hold, and the indices of the edits the model refuses."""
        from incomes_plugin.vllm.engine import CaptureJob

        jobs = [CaptureJob(str(edit.index), 1, tuple(self.text_ids(edit.text))) for edit in edits]
        captured = await self._edits.capture(jobs)
        blobs = [c.blob for c in captured if c.blob is not None]
        return blobs, sum(c.num_gists for c in captured), {int(c.edit_id) for c in captured if c.blob is None}

    async def _answers(
        self, prompts: Sequence[Sequence[int]], snapshot: SnapshotRef | None, max_tokens: int, traced: frozenset[int]
    ) -> list[Answer]:
        answers = (self._answer(p, snapshot, max_tokens, i in traced) for i, p in enumerate(prompts))
        return list(await asyncio.gather(*answers))

    async def _answer(
        self, prompt: Sequence[int], snapshot: SnapshotRef | None, max_tokens: int, traced: bool
    ) -> Answer:
        from vllm import SamplingParams

        from incomes_plugin.vllm.pin import EditScope

        trace = f"eval-{secrets.token_hex(8)}" if traced else None
        scope = EditScope(snapshot.edit_set, snapshot, trace) if snapshot else EditScope(None, None)
        params = SamplingParams(max_tokens=max_tokens, temperature=0.0)
        output = (await self._edits.generate(prompt, params, scope)).outputs[0]
        tokens = tuple(token for token in output.token_ids if token != self.tokenizer.eos_token_id)
        attributed, weight = await self._attributed(trace) if trace else (None, 0.0)
        return Answer(output.text.strip(), tokens, attributed, weight, len(prompt))

    async def _attributed(self, trace: str) -> tuple[int | None, float]:
        applied = (await self._edits.attribution(trace)).applied
        if not applied:
            return None, 0.0
        edit_id, _, weight = max(applied, key=lambda edit: edit[2])
        return int(edit_id), weight
