"""EditEngine: the engine as the server uses it. It captures gists, commits and resolves snapshots, and traces answers.

One instance per `AsyncLLM`, used on its event loop. Errors are typed (`errors.py`). A worker that cannot do what it is
asked keeps its old state. When workers give different answers, the engine counts as lost.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from incomes_plugin.errors import (
    EngineLost,
    FingerprintMismatch,
    SelectionFailed,
    UnsupportedEngine,
)
from incomes_plugin.gist.edit import Captured, CaptureJob, EditKey
from incomes_plugin.gist.fingerprint import model_fingerprint
from incomes_plugin.gist.spelling import Speller
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.pool.snapshot import SnapshotDelta, SnapshotRef
from incomes_plugin.selection.attribution import Attribution
from incomes_plugin.vllm.answers import ANSWERS_ATTRIBUTE, Answers
from incomes_plugin.vllm.compressor import Compressor
from incomes_plugin.vllm.config import WORKER_CLS, has_selection_layer
from incomes_plugin.vllm.pin import PINS_ATTRIBUTE, EditScope, use_scope
from incomes_plugin.vllm.recalls import engine_errors, runs_eagerly, say
from incomes_plugin.vllm.register import register
from incomes_plugin.vllm.registry import SnapshotRegistry
from incomes_plugin.vllm.status import EngineStatus, WorkerStatus
from incomes_plugin.vllm.touches import assert_touches
from incomes_plugin.vllm.traces import Choice, RequestTrace
from incomes_plugin.vllm.wire import RpcAnswer, one_answer, pack_delta, unpack_status, unpack_trace

if TYPE_CHECKING:
    import torch
    from vllm import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

__all__ = ["CaptureJob", "Captured", "EditEngine", "EngineStatus"]
_RETIRE_EVERY_S = 0.05


class EditEngine:
    """See the module docstring. Make it with `attach`.

    Attributes:
        fingerprint: identity of model, adapter and dtype; gists of another one are refused.
        dtype: what gists are computed in.
        adapter: the model's edit adapter.
    """

    def __init__(
        self, engine: AsyncLLM, adapter: EditAdapter, speller: Speller, fingerprint: str, dtype: torch.dtype
    ) -> None:
        self.fingerprint = fingerprint
        self.dtype = dtype
        self.adapter = adapter
        self._engine = engine
        self._compressor = Compressor(adapter, speller, self._run, self._call)
        self._registry = SnapshotRegistry(lambda: engine.output_processor.external_req_ids.keys(), adapter.template)
        self._answers = Answers()
        self._commits = asyncio.Lock()
        self._retiring: asyncio.Task[None] | None = None

    @classmethod
    async def attach(cls, engine: AsyncLLM, base_dir: Path, adapter_dir: Path) -> EditEngine:
        """Check every worker of a running engine, and pin its requests from now on.

        Raises:
            UnsupportedEngine: the engine runs without our worker class, or vLLM is not the one we know.
            FingerprintMismatch: the workers loaded another base or adapter than these.
            EngineLost: the engine is dead or ranks differ.
        """
        if not has_selection_layer(engine.vllm_config):
            raise UnsupportedEngine(
                f"the engine runs without the selection layer; start it with --worker-cls {WORKER_CLS}"
            )
        dtype: Any = engine.vllm_config.model_config.dtype
        assert_touches()
        register()
        fingerprint = await asyncio.to_thread(model_fingerprint, base_dir, adapter_dir, dtype)
        speller = await asyncio.to_thread(_speller, base_dir)
        self = cls(engine, EditAdapter.load(adapter_dir), speller, fingerprint, dtype)
        found = (await self._handshake()).fingerprint
        if found != fingerprint:
            raise FingerprintMismatch(f"the engine runs model {found}, {base_dir} with {adapter_dir} is {fingerprint}")
        setattr(engine.input_processor, PINS_ATTRIBUTE, self._registry)
        setattr(engine.output_processor, ANSWERS_ATTRIBUTE, self._answers)
        return self

    async def capture(self, jobs: Sequence[CaptureJob]) -> list[Captured]:
        """Compress edits by prefill on the serving engine, batched by its scheduler; one result per job, in order.

        Raises:
            EngineLost: the engine died; no job has a result then.
        """
        return await self._compressor.capture(jobs)

    async def compare(self, edit_set: str, new: Sequence[Captured], others: Sequence[bytes]) -> list[Captured]:
        """The same captured edits, compared with the newest snapshot of their set, with other gists and one another;
        `compared` stays empty where that fails. Raises EngineLost."""
        return await self._compressor.compare(edit_set, new, others)

    async def commit(self, delta: SnapshotDelta[bytes]) -> None:
        """Bring the snapshot to all workers, in time proportional to the changes. Then it is the `current` one of its
        edit set.

        A delta that says that the set is deleted does what `drop` does.

        Raises:
            SnapshotNotFound: `delta.base` is not the current snapshot, or the delta does not fit it.
            PoolFull, GistFormatError, FingerprintMismatch: refused; the old state is intact.
            EngineLost: ranks disagree or the engine is dead.
        """
        # A cancelled caller must not leave the workers a snapshot ahead of the registry.
        change = self._drop(delta.key) if delta.deleted else self._commit(delta)
        await asyncio.shield(asyncio.ensure_future(change))

    def current(self, edit_set: str) -> SnapshotRef | None:
        """Newest committed snapshot of an edit set, or the one at a label of it (`label_key`); None without one."""
        return self._registry.current(edit_set)

    def off(self, edit_set: str) -> str | None:
        """Whose switch takes all edits from the set's requests, `edit_set` or `server`; None: nobody's."""
        return self._registry.off(edit_set)

    def find(self, edit_set: str, snapshot_id: str) -> SnapshotRef:
        """A snapshot that may be pinned now. Raises SnapshotNotFound, SnapshotRetired."""
        return self._registry.find(edit_set, snapshot_id)

    def hold(self, snapshot: SnapshotRef) -> AbstractContextManager[None]:
        """Keep a resolved snapshot in the pool until the block has ended. Raises as `find` does."""
        return self._registry.hold(snapshot)

    async def drop(self, edit_set: str) -> None:
        """Forget an edit set. Its snapshots leave the pool as soon as no request reads them."""
        await asyncio.shield(asyncio.ensure_future(self._drop(edit_set)))

    async def attribution(self, trace: str) -> Attribution:
        """The attribution of a finished request by its trace id, over all its answers. It can be fetched once.

        Raises:
            SelectionFailed: nothing was traced under this id, so the answer was made without reading a pool.
        """
        return (await self._take_trace(trace)).mean

    async def attributions(self, trace: str) -> dict[Choice, Attribution]:
        """The attribution of each answer, by the numbers of prompt and answer, both from 0. Raises SelectionFailed."""
        return (await self._take_trace(trace)).answers

    def has_verbatim(self, snapshot: SnapshotRef) -> bool:
        """Whether there are verbatim edits in a snapshot: they answer requests whose picks they lead."""
        return self._registry.has_verbatim(snapshot)

    async def leads(self, trace: str) -> dict[int, tuple[EditKey, ...]]:
        """The verbatim edits among the picks of each prompt of a probe (`EditScope.probe`) that one leads, likeliest
        first."""
        self._answers.take(trace)
        answer = await self._call("incomes_take_leads", trace)
        found: dict[int, tuple[EditKey, ...]] = {}
        for prompt, edit, version in answer["leads"]:
            found[int(prompt)] = (*found.get(int(prompt), ()), (str(edit), int(version)))
        return found

    async def drop_trace(self, trace: str) -> None:
        """Drop a trace that nobody will fetch, because the request was aborted or failed."""
        with suppress(SelectionFailed, EngineLost):
            await self._take_trace(trace)

    async def status(self) -> EngineStatus:
        """Counters of engine and pool. Raises EngineLost."""
        registry = self._registry
        return EngineStatus(
            await self._handshake(), registry.num_pinned_requests, registry.pinned_by_set, registry.edit_sets
        )

    @property
    def vocabulary_size(self) -> int:
        """Tokens the model knows."""
        return int(self._engine.vllm_config.model_config.get_vocab_size())

    async def generate(self, token_ids: Sequence[int], params: SamplingParams, scope: EditScope) -> Any:
        """Run one prompt to its end under `scope`; returns vLLM's final `RequestOutput`."""
        with use_scope(scope):
            return await self._run(token_ids, params)

    def recall(self, template: Sequence[int], vectors: torch.Tensor, num_tokens: int) -> AsyncIterator[list[int]]:
        """The `num_tokens + 1` tokens that greedy decoding says after a template (a token at least) and vectors
        `[K, hidden]`, as they are made, with nothing else in the context.

        Raises:
            InvalidValue: vectors of another shape.
            UnsupportedEngine: the served model takes no vectors, or the engine compiles it.
        """
        return say(self._engine, self._call, template, vectors, num_tokens)

    @property
    def says_texts(self) -> bool:
        """Whether vectors are taken: only by an engine that does not compile."""
        return runs_eagerly(self._engine.vllm_config)

    async def _take_trace(self, trace: str) -> RequestTrace:
        tokens = [[*choice, number] for choice, number in self._answers.take(trace).items()]
        found = unpack_trace(await self._call("incomes_take_trace", trace, tokens))
        if found is None:
            raise SelectionFailed(f"no attribution under trace {trace}")
        return found

    async def _commit(self, delta: SnapshotDelta[bytes]) -> None:
        async with self._commits:
            if delta.label is None and delta.off is not None:  # also where the rest of the delta is refused
                self._registry.switched(delta.snapshot.edit_set, delta.off)
            # Retired in this very call, before room is needed; the target may be an older content come back.
            if delta.label is None or not self._registry.holds(delta.snapshot):
                retire = self._registry.unused(keep=delta.snapshot.id)
                answer = await self._call("incomes_commit", pack_delta(delta, retire))
                self._registry.marked(delta.snapshot, answer["verbatim"] > 0)
            self._registry.committed(delta.snapshot, delta.key)
            if delta.label is None:
                self._registry.switched(delta.snapshot.edit_set, delta.off)
        self._retire_soon()

    async def _drop(self, edit_set: str) -> None:
        async with self._commits:
            self._registry.dropped(edit_set)
            await self._call("incomes_forget", edit_set)
        self._retire_soon()

    async def _run(self, token_ids: Sequence[int], params: SamplingParams) -> Any:
        from vllm.inputs.engine import tokens_input

        output = None
        with engine_errors():
            stream = self._engine.generate(tokens_input(list(token_ids)), params, f"incomes-{secrets.token_hex(8)}")
            async for update in stream:
                output = update
        return output

    async def _handshake(self) -> WorkerStatus:
        return unpack_status(await self._call("incomes_handshake"))

    async def _call(self, method: str, *args: Any) -> RpcAnswer:
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            answers = await self._engine.collective_rpc(method, args=args)
        except EngineDeadError as error:
            raise EngineLost(f"the engine died: {error}") from error
        except Exception as error:
            raise EngineLost(f"{method} did not reach the workers: {error}") from error
        return one_answer(method, answers)

    def _retire_soon(self) -> None:
        """Free superseded snapshots in the background for as long as there are any."""
        if self._registry.num_superseded and (self._retiring is None or self._retiring.done()):
            self._retiring = asyncio.create_task(self._retire_superseded())

    async def _retire_superseded(self) -> None:
        with suppress(EngineLost):  # nothing is left to free then, and every other call reports it
            while self._registry.num_superseded:
                async with self._commits:
                    if unused := self._registry.unused():
                        await self._call("incomes_retire", unused)
                await asyncio.sleep(_RETIRE_EVERY_S)


def _speller(base_dir: Path) -> Speller:
    from transformers import AutoTokenizer

    return Speller(AutoTokenizer.from_pretrained(base_dir))
