"""Real vLLM engines in a child process, driven step by step: several engines, one import of vLLM.

The child has no server: it plays the part of `EditEngine` for the synchronous `LLM`, through the same RPCs, pins and
hooks. `test_edit_engine.py` tests `EditEngine` itself on `AsyncLLM`.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from itertools import chain
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from incomes_plugin.errors import IncomesError
from incomes_plugin.gist import Gist, load_gists
from incomes_plugin.pool.snapshot import EMPTY_DIGEST, SnapshotDelta, SnapshotRef, add_to_digest

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_USE_V2_MODEL_RUNNER": "0",
}
COMMON: dict[str, Any] = {
    "enforce_eager": True,
    "distributed_executor_backend": "uni",
    "max_model_len": 512,
    "block_size": 32,
    "max_num_batched_tokens": 2048,
    "max_num_seqs": 64,
    "num_gpu_blocks_override": 512,
}
POOL_BYTES = 8 << 20


def edited(adapter_dir: Path, pool_bytes: int = POOL_BYTES) -> dict[str, Any]:
    """Options of an engine with the selection layer."""
    from incomes_plugin.vllm.config import PluginConfig  # a stock engine's process imports nothing of the plugin

    return {
        "worker_cls": "incomes_plugin.vllm.worker.EditWorker",
        "additional_config": PluginConfig(adapter_dir, pool_bytes).added_to(None),
    }


@dataclass(frozen=True)
class Job:
    """A prompt and what it may see."""

    ids: tuple[int, ...]
    snapshot: SnapshotRef | None = None
    trace: str | None = None
    max_tokens: int = 8
    salt: str | None = None
    force: bool = False
    probe: bool = False
    prompt_logprobs: int | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recall:
    """Vectors `[K, hidden]` to decode; `lost`: they never reach the worker."""

    template: tuple[int, ...]
    vectors: torch.Tensor
    num_tokens: int
    lost: bool = False


@dataclass(frozen=True)
class Answer:
    """A greedy continuation; `logprobs[i]` maps token ids to log-probabilities of position i."""

    tokens: tuple[int, ...]
    logprobs: list[dict[int, float]] = field(repr=False)
    cached: int
    finish: str
    prompt_logprobs: list[dict[int, float] | None] = field(default_factory=list, repr=False)


class LabEngine:
    """One `LLM` in the child."""

    def __init__(self, model_dir: Path, options: dict[str, Any]) -> None:
        from vllm import LLM

        self.llm = LLM(model=str(model_dir), **{**COMMON, **options})
        self.core = self.llm.llm_engine
        self.pins: Any = None
        self.count = self.num_preemptions = 0
        self._count_preemptions()
        if "worker_cls" in options:
            from transformers import AutoTokenizer

            from incomes_plugin.gist.spelling import Speller
            from incomes_plugin.model.adapter import EditAdapter
            from incomes_plugin.vllm.answers import ANSWERS_ATTRIBUTE, Answers
            from incomes_plugin.vllm.pin import PINS_ATTRIBUTE
            from incomes_plugin.vllm.registry import SnapshotRegistry

            template = EditAdapter.load(Path(options["additional_config"]["incomes"]["adapter"])).template
            self.pins = SnapshotRegistry(lambda: self.core.output_processor.external_req_ids.keys(), template)
            setattr(self.core.input_processor, PINS_ATTRIBUTE, self.pins)
            self.speller = Speller(AutoTokenizer.from_pretrained(model_dir))
            self.answers = Answers()
            setattr(self.core.output_processor, ANSWERS_ATTRIBUTE, self.answers)

    @property
    def runtime(self) -> Any:
        return self.core.model_executor.driver_worker.worker.incomes_runtime

    def rpc(self, method: str, *args: Any) -> Any:
        from incomes_plugin.vllm.wire import one_answer

        return one_answer(method, self.llm.collective_rpc(method, args=args))

    def raw_rpc(self, method: str, *args: Any) -> list[Any]:
        """Answers of the workers as they are, past what observes RPCs in the engine core."""
        return self.core.model_executor.collective_rpc(method, args=args)

    def set_pool_bytes(self, capacity_bytes: int, rank: int | None = None) -> None:
        """Give the pools of all ranks, or of one, another capacity."""
        self.core.model_executor.collective_rpc(_set_pool_bytes, args=(capacity_bytes, rank))

    def capture(self, texts: dict[str, list[int]], verbatim: Sequence[str] = ()) -> list[Any]:
        """Capture texts by edit id; returns what became of each.

        Args:
            verbatim: those that are found by these texts and never read.
        """
        from incomes_plugin.vllm.pin import use_capture
        from incomes_plugin.vllm.rows import RequestTag
        from incomes_plugin.vllm.wire import unpack_captures

        template = self.pins.template
        for edit_id, ids in texts.items():
            with use_capture(RequestTag(capture=edit_id, first=len(template.edit_prefix), count=len(ids))):
                self._add(Job(tuple(template.capture_ids(ids)), max_tokens=1))
        self._finish()
        spelled = {edit_id: list(chain.from_iterable(self.speller(ids).rows)) for edit_id, ids in texts.items()}
        wanted = [[edit_id, edit_id, 1, edit_id in verbatim, spelled[edit_id]] for edit_id in texts]
        return unpack_captures(self.rpc("incomes_take_captures", wanted))

    def commit(self, delta: SnapshotDelta) -> None:
        from incomes_plugin.vllm.wire import pack_delta

        self.rpc("incomes_commit", pack_delta(delta, self.pins.unused(keep=delta.snapshot.id)))
        self.pins.committed(delta.snapshot)

    def take_trace(self, name: str) -> Any:
        """What a traced request read; None when nothing was traced."""
        from incomes_plugin.vllm.wire import unpack_trace

        tokens = [[*choice, number] for choice, number in self.answers.take(name).items()]
        return unpack_trace(self.rpc("incomes_take_trace", name, tokens))

    def run(self, jobs: Sequence[Job], together: bool = True) -> list[Answer]:
        """Run the jobs in one batch, or one after the other."""
        answers: dict[str, Answer] = {}
        names = []
        for job in jobs:
            names.append(self._start(job))
            if not together:
                answers |= self._finish()
        answers |= self._finish()
        return [answers[name] for name in names]

    def recall(self, recalls: Sequence[Recall], jobs: Sequence[Job] = ()) -> tuple[list[Answer], list[Answer]]:
        """Answers of recalls, and of jobs that run in the same batch."""
        from incomes_plugin.vllm.pin import use_capture
        from incomes_plugin.vllm.rows import RequestTag

        names = [self._start(job) for job in jobs]
        for number, one in enumerate(recalls):
            name, count = f"recall-{number}", len(one.vectors)
            if not one.lost:
                self.rpc("incomes_put_vectors", name, one.vectors.numpy().tobytes(), count)
            ids = (*one.template, *one.template[-1:] * count)
            with use_capture(RequestTag(recall=name, first=len(one.template))):
                names.append(self._add(Job(ids, max_tokens=one.num_tokens + 1)))
        done = self._finish()
        self.run([Job((1, 3), max_tokens=1)])  # the runner forgets ended requests with its next step
        answers = [done[name] for name in names]
        return answers[len(jobs) :], answers[: len(jobs)]

    def vectors_left(self) -> int:
        """Recalls whose vectors the worker still has."""
        return len(self.runtime.recalls)

    def run_embeddings(self, embeds: Any) -> None:
        """A client that sends embeddings for a prompt."""
        from vllm import SamplingParams
        from vllm.inputs.engine import embeds_input

        from incomes_plugin.vllm.pin import EditScope, use_scope

        with use_scope(EditScope(None, None)):
            self.core.add_request("embeds", embeds_input(embeds), SamplingParams(max_tokens=1))

    def run_unscoped_request(self, ids: tuple[int, ...]) -> None:
        """A request nobody authorised."""
        self._add(Job(ids))

    def run_smuggled(self, ids: tuple[int, ...], extra_args: dict[str, Any]) -> None:
        """A client that sends our own arguments."""
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input

        from incomes_plugin.vllm.pin import EditScope, use_scope

        with use_scope(EditScope(None, None)):
            self.core.add_request("smuggler", tokens_input(list(ids)), SamplingParams(extra_args=extra_args))

    def run_stock(self, jobs: Sequence[Job]) -> list[Answer]:
        """Run jobs on an engine without the plugin."""
        names = [self._add(job) for job in jobs]
        answers = self._finish()
        return [answers[name] for name in names]

    def run_and_retire(self, jobs: Sequence[Job]) -> list[Answer]:
        """Run jobs in one batch; their snapshots are retired on the worker as soon as all jobs have started."""
        names = [self._start(job) for job in jobs]
        done: dict[str, Answer] = {}
        while len(self.runtime.tagged) < len(jobs):
            done |= self._step()
            assert not done
        self.rpc("incomes_retire", [job.snapshot.id for job in jobs if job.snapshot])
        done = self._finish()
        return [done[name] for name in names]

    def worker_add_request(self, snapshot_id: str) -> None:
        """What the model runner would do with a request whose snapshot is not resident."""
        self.runtime.add_request("ghost", {"incomes_snapshot": snapshot_id}, 1)

    def break_a_layer(self, fault: str | None = "raises") -> None:
        """Fault injection: the last reading layer loses its weights, or does nothing. None mends it."""
        layer = self.runtime.reading_layers[-1]
        layer.__dict__.pop("read", None)
        if fault == "inert":
            layer.read = lambda *args: None
        elif fault == "raises":
            layer._scaled = None

    def break_copying(self, fault: str | None = "inert") -> None:
        """Fault injection: nothing is left for the logits (`inert`), or the runner gets them past what copies
        (`bypassed`). None mends it."""
        logits = self.runtime.logits
        model = self.core.model_executor.driver_worker.worker.model_runner.model
        logits.__dict__.pop("leave", None)
        model.compute_logits = logits.compute_logits
        if fault == "inert":
            logits.leave = lambda copies: None
        elif fault == "bypassed":
            model.compute_logits = logits._compute

    def canary(self) -> tuple[bool, str]:
        """Whether the start-up canary passes, and why not."""
        import asyncio

        from incomes_plugin.vllm.canary import run_canary

        report = asyncio.run(run_canary(CanaryEngine(self)))  # type: ignore[arg-type]
        return report.ok, report.reason

    def watch_picks(self) -> None:
        """Record what every request picks from now on, and which lines routing is told of."""
        watching = hasattr(self, "picks")
        self.picks: list[Any] = []
        if watching:
            return
        runtime: Any = import_module("incomes_plugin.vllm.runtime")
        choose = self.runtime._choose
        self.lines: list[tuple[int, ...]] = []
        pick = runtime.choose

        def pick_and_record(*args: Any) -> Any:
            self.lines.append(args[-1])
            return pick(*args)

        runtime.choose = pick_and_record

        def choose_and_record(snapshot: Any, tag: Any, pages: Any) -> Any:
            picks = choose(snapshot, tag, pages)
            edits = [snapshot.table.edits[row][0] for row in picks.edits]
            candidates = [snapshot.table.edits[row][0] for row in picks.candidates]
            self.picks.append((edits, picks.bias.tolist(), dict(zip(candidates, picks.logits.tolist(), strict=True))))
            return picks

        self.runtime._choose = choose_and_record

    def watched_lines(self) -> list[tuple[int, ...]]:
        """Since the last call: where routing was told that lines of the questions begin."""
        lines, self.lines = self.lines, []
        return lines

    def watched_picks(self) -> list[Any]:
        """Since the last call: edit ids and their b, verifier's logit of each candidate."""
        picks, self.picks = self.picks, []
        return picks

    def preemptions(self) -> int:
        """Since the start (vLLM's metric is one for all engines of a process)."""
        return self.num_preemptions

    def _count_preemptions(self) -> None:
        core: Any = self.core  # vLLM's in-process client has it, its base class does not say so
        scheduler = core.engine_core.engine_core.scheduler
        preempt = scheduler._preempt_request

        def count_and_preempt(*args: Any, **kwargs: Any) -> Any:
            self.num_preemptions += 1
            return preempt(*args, **kwargs)

        scheduler._preempt_request = count_and_preempt

    def _start(self, job: Job) -> str:
        """Add a job under the scope it names."""
        from incomes_plugin.vllm.pin import EditScope, use_scope

        edit_set = None if job.snapshot is None else job.snapshot.edit_set
        with use_scope(EditScope(edit_set, job.snapshot, job.trace, job.force, probe=job.probe)):
            return self._add(job)

    def _add(self, job: Job) -> str:
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input

        self.count += 1
        params = SamplingParams(
            max_tokens=job.max_tokens,
            temperature=0,
            logprobs=5,
            ignore_eos=True,
            detokenize=False,
            prompt_logprobs=job.prompt_logprobs,
            **job.sampling,
        )
        name = f"job-{self.count}"
        try:
            self.core.add_request(name, tokens_input(list(job.ids), cache_salt=job.salt), params)
        except IncomesError:
            self.core.abort_request([name])  # `LLM` leaves what the engine core refused in its output processor
            raise
        return name

    def _finish(self) -> dict[str, Answer]:
        done: dict[str, Answer] = {}
        while self.core.has_unfinished_requests():
            done |= self._step()
        return done

    def _step(self) -> dict[str, Answer]:
        return {output.request_id: _answer(output) for output in self.core.step() if output.finished}


def _set_pool_bytes(worker: Any, capacity_bytes: int, rank: int | None) -> None:
    if rank in (None, worker.rank):
        worker.incomes_runtime.pool.capacity_bytes = capacity_bytes


class CanaryEngine:
    """What the canary needs of `EditEngine`, on a `LabEngine`."""

    def __init__(self, lab: LabEngine) -> None:
        self.lab = lab
        self.adapter = lab.runtime.adapter
        self.fingerprint = lab.rpc("incomes_handshake")["fingerprint"]
        self.vocabulary_size = int(lab.core.model_config.get_vocab_size())

    async def capture(self, jobs: Sequence[Any]) -> list[Any]:
        return self.lab.capture({job.edit_id: list(job.token_ids) for job in jobs})

    async def commit(self, delta: SnapshotDelta) -> None:
        self.lab.commit(delta)

    async def attribution(self, trace: str) -> Any:
        return self.lab.take_trace(trace).mean

    async def drop(self, edit_set: str) -> None:
        self.lab.pins.dropped(edit_set)
        self.lab.rpc("incomes_forget", edit_set)

    async def generate(self, ids: Sequence[int], params: Any, scope: Any) -> Any:
        job = Job(tuple(ids), scope.snapshot, scope.trace, max_tokens=params.max_tokens, force=scope.force)
        (answer,) = self.lab.run([job])
        logprobs = [{t: SimpleNamespace(logprob=v) for t, v in step.items()} for step in answer.logprobs]
        return SimpleNamespace(outputs=[SimpleNamespace(logprobs=logprobs, finish_reason=answer.finish)])


def _answer(output: Any) -> Answer:
    best = output.outputs[0]
    logprobs = [{t: e.logprob for t, e in step.items()} for step in best.logprobs or []]
    of_prompt = [step and {t: e.logprob for t, e in step.items()} for step in output.prompt_logprobs or []]
    return Answer(tuple(best.token_ids), logprobs, output.num_cached_tokens or 0, best.finish_reason, of_prompt)


def child_main(pipe: Connection, engine_class: type[LabEngine]) -> None:
    """Serve `(engine name, method, args)` until None."""
    if os.environ["VLLM_USE_V2_MODEL_RUNNER"] == "1":
        from tests.incomes_plugin.vllm_v2.triton_cpu import install

        install()
    engines: dict[str, LabEngine] = {}
    while (call := pipe.recv()) is not None:
        name, method, args = call
        try:
            if method == "open":
                engines[name] = engine_class(*args)
                pipe.send((True, None))
            elif method == "modules":
                import sys

                pipe.send((True, [m for m in sys.modules if m.startswith("incomes_plugin.vllm")]))
            else:
                pipe.send((True, getattr(engines[name], method)(*args)))
        except Exception as error:  # noqa: BLE001  the parent raises it again
            pipe.send((False, picklable(error)))
    os._exit(0)  # vLLM's own shutdown of several engines takes half a minute


def picklable(error: Exception) -> Exception:
    """The error for the parent: ours by its code, any other with its traceback as text."""
    from incomes_plugin.vllm.wire import answer_error

    if isinstance(error, IncomesError):
        return answer_error({"code": error.code, "message": error.message, "param": error.param})
    return RuntimeError("".join(traceback.format_exception(error)))


@contextmanager
def environment_of(variables: dict[str, str]) -> Iterator[None]:
    """`os.environ` with these variables, for the length of the block."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Lab:
    """The child as seen by the tests."""

    def __init__(self, engine_class: type[LabEngine] = LabEngine, **environment: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=child_main, args=(theirs, engine_class))
        with environment_of(ENVIRONMENT | environment):
            self._process.start()
        theirs.close()
        self._opened: set[str] = set()

    def engine(self, name: str, model_dir: Path, options: dict[str, Any]) -> RemoteEngine:
        if name not in self._opened:
            self.call(name, "open", model_dir, options)
            self._opened.add(name)
        return RemoteEngine(self, name)

    def call(self, name: str, method: str, *args: Any) -> Any:
        self._pipe.send((name, method, args))
        ok, value = self._pipe.recv()
        if not ok:
            raise value
        return value

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join(30)
        if self._process.is_alive():
            self._process.kill()
        self._process.close()
        self._pipe.close()


@dataclass(frozen=True)
class RemoteEngine:
    """One engine of the child; the methods are `LabEngine`'s."""

    lab: Lab
    name: str

    def run(self, jobs: Sequence[Job], together: bool = True) -> list[Answer]:
        return self.lab.call(self.name, "run", list(jobs), together)

    def call(self, method: str, *args: Any) -> Any:
        return self.lab.call(self.name, method, *args)

    @property
    def fingerprint(self) -> str:
        return self.call("rpc", "incomes_handshake")["fingerprint"]

    def used_bytes(self) -> int:
        return self.call("rpc", "incomes_handshake")["pool"]["used_bytes"]

    def capture(self, texts: dict[str, list[int]], verbatim: Sequence[str] = ()) -> dict[str, bytes]:
        """One-gist blob of every text."""
        taken = self.call("capture", texts, verbatim)
        assert [captured.error for captured in taken] == [None] * len(texts)
        return {captured.edit_id: captured.blob for captured in taken}

    def gists(self, blobs: dict[str, bytes]) -> list[Gist]:
        fingerprint = self.fingerprint
        return [gist for blob in blobs.values() for gist in load_gists(blob, fingerprint)]

    def commit(
        self,
        edit_set: str,
        base: SnapshotRef | None,
        added: dict[str, bytes],
        removed: Sequence[str] = (),
    ) -> SnapshotRef:
        digest, num_edits = (base.digest, base.num_edits) if base else (EMPTY_DIGEST, 0)
        for edit_id in added:
            digest = add_to_digest(digest, edit_id, 1)
        for edit_id in removed:
            digest = add_to_digest(digest, edit_id, 1, sign=-1)
        version = base.version + 1 if base else 1
        snapshot = SnapshotRef(edit_set, version, digest, num_edits + len(added) - len(removed))
        gone = tuple((edit_id, 1) for edit_id in removed)
        self.call("commit", SnapshotDelta(base.id if base else None, snapshot, tuple(added.values()), gone))
        return snapshot
