"""vLLM engines in a process of their own, driven over a pipe by `conftest.EngineProcess`. Run as a script.

`child.py <fd>`: receives the options of each engine by name, builds them, then answers `(name, method, args)` messages
until None comes. Replies are `(True, value)` or `(False, traceback)`; values are plain lists, dicts, numbers, bytes.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

Answer = tuple[list[int], list[dict[int, float]]]


class Engine:
    """The methods a test may call."""

    def __init__(self, options: dict[str, Any]) -> None:
        from vllm import LLM

        self.llm = LLM(**options)
        self.worker = self.llm.llm_engine.model_executor.driver_worker.worker
        self.events: list[tuple[str, Any]] = []
        self.num_preemptions = 0
        self._count_preemptions()

    def runner(self) -> str:
        """Module and class of the model runner in use."""
        kind = type(self.worker.model_runner)
        return f"{kind.__module__}.{kind.__qualname__}"

    def generate(
        self, prompts: list[list[int]], max_tokens: int, snapshots: list[str | None] | None = None
    ) -> list[Answer]:
        """Greedy tokens and top-3 logprobs of each prompt, all sent at once, read under `snapshots[i]`."""
        self._add(prompts, max_tokens, snapshots or [None] * len(prompts))
        return self._finish()

    def generate_and_retire(self, prompts: list[list[int]], max_tokens: int, snapshot: str) -> list[Answer]:
        """As `generate` with all prompts under `snapshot`, which is retired as soon as a request was preempted."""
        self._add(prompts, max_tokens, [snapshot] * len(prompts))
        before = self.num_preemptions
        done: dict[str, Answer] = {}
        while self.num_preemptions == before:
            done |= self._step()
        assert self.rpc("incomes_retire", [snapshot])["ok"]
        return self._finish(done)

    def capture(self, prompts: list[list[int]], num_gists: int) -> list[bytes]:
        """The gist blob of each capture prompt; edit i is `edit_<i>`, version 1."""
        from vllm import SamplingParams

        params = [
            SamplingParams(
                max_tokens=1,
                skip_reading_prefix_cache=True,
                extra_args={"incomes_capture": f"capture_{i}", "incomes_num_gists": num_gists},
            )
            for i in range(len(prompts))
        ]
        self.llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
        wanted = [[f"capture_{i}", f"edit_{i}", 1] for i in range(len(prompts))]
        taken = self.rpc("incomes_take_captures", wanted)
        assert taken["ok"], taken
        assert all(blob is not None for blob, _, _ in taken["captures"]), taken
        return [blob for blob, _, _ in taken["captures"]]

    def rpc(self, method: str, *args: Any) -> Any:
        """Answer of the only worker."""
        return self.llm.collective_rpc(method, args=args)[0]

    def preemptions(self) -> int:
        """Preemptions since the start (vLLM's metric is one for all engines of a process)."""
        return self.num_preemptions

    def watch(self) -> None:
        """Record every plan of the runtime from now on."""
        runtime = self.worker.incomes_runtime
        begin, end = runtime.begin_step, runtime.end_step

        def begin_step(spans: Any, positions: Any) -> None:
            laid_out = [(s.request_id, s.first_row, s.num_rows, s.first_position) for s in spans]
            self.events.append(("begin", (laid_out, positions.tolist())))
            begin(spans, positions)

        def end_step() -> None:
            self.events.append(("end", None))
            end()

        runtime.begin_step, runtime.end_step = begin_step, end_step

    def watched(self) -> list[tuple[str, Any]]:
        """Events since the last call."""
        events, self.events = self.events, []
        return events

    def dummy_run(self) -> bool:
        """A dummy and a profiling run; whether a plan is left behind."""
        self.worker.model_runner._dummy_run(8)
        self.worker.model_runner.profile_run()
        return self.worker.incomes_runtime.plan is not None

    def dispatch(self, mode: str, batch: tuple[int, int, int | None], snapshot: str | None) -> str:
        """Kind of CUDA graph that a batch gets while one request is resident, under `snapshot` or none.

        The graph manager is vLLM's own with capture sizes of a GPU; only the capture itself is pretended.
        """
        from incomes_plugin.vllm.rows_v2 import V2Rows

        with self._resident(snapshot), self._graph_manager(mode):
            rows = V2Rows(self.worker.model_runner, self.worker.incomes_runtime)
            num_reqs, num_tokens, uniform = batch
            return rows.dispatch(num_reqs, num_tokens, uniform, num_active_loras=0, max_query_len=uniform).cg_mode.name

    def step_with_another_manager(self, snapshot: str | None) -> str:
        """What a step says when vLLM has exchanged the graph manager that our guard sits on."""
        from incomes_plugin.errors import SelectionFailed

        with self._resident(snapshot), self._graph_manager("NONE"):
            try:
                self._step()
            except SelectionFailed as error:
                return error.message
        return "answered"

    def refused_touches(self) -> list[str]:
        """Methods whose signature check fails when the expected parameters are other ones."""
        from dataclasses import replace

        from incomes_plugin.errors import UnsupportedEngine
        from incomes_plugin.vllm.touches import V2_TOUCHES, assert_touches

        refused = []
        for touch in V2_TOUCHES:
            try:
                assert_touches((replace(touch, parameters=(*touch.parameters, "removed")),))
            except UnsupportedEngine:
                refused.append(touch.target.rpartition(".")[2])
        return refused

    def _count_preemptions(self) -> None:
        scheduler = self.llm.llm_engine.engine_core.engine_core.scheduler
        preempt = scheduler._preempt_request

        def count_and_preempt(*args: Any, **kwargs: Any) -> Any:
            self.num_preemptions += 1
            return preempt(*args, **kwargs)

        scheduler._preempt_request = count_and_preempt

    @contextmanager
    def _resident(self, snapshot: str | None) -> Iterator[None]:
        """One request, prefilled and still running."""
        request = self._add([[1, 5, 9]], 4, [snapshot])
        self._step()
        yield
        self.llm.llm_engine.abort_request(request)
        self.generate([[1, 3]], 1)  # the runner drops the aborted request with its next step

    @contextmanager
    def _graph_manager(self, mode: str) -> Iterator[None]:
        import copy

        from vllm.config.compilation import CUDAGraphMode
        from vllm.platforms import current_platform
        from vllm.v1.worker.gpu.cudagraph_utils import ModelCudaGraphManager

        type(current_platform)._global_graph_pool = (0, 0)  # the handle of CUDA's memory pool, which a CPU lacks
        runner = self.worker.model_runner
        config = copy.copy(self.worker.vllm_config)
        config.compilation_config = copy.copy(config.compilation_config)
        config.compilation_config.cudagraph_capture_sizes = [1, 2, 4, 8, 16]
        config.compilation_config.max_cudagraph_capture_size = 16
        manager = ModelCudaGraphManager(config, runner.device, CUDAGraphMode[mode], decode_query_len=1)
        manager._graphs_captured = True
        kept, runner.cudagraph_manager = runner.cudagraph_manager, manager
        try:
            yield
        finally:
            runner.cudagraph_manager = kept

    def _add(self, prompts: list[list[int]], max_tokens: int, snapshots: list[str | None]) -> list[str]:
        from vllm import SamplingParams

        names = [f"request_{i}" for i in range(len(prompts))]
        for name, ids, snapshot in zip(names, prompts, snapshots, strict=True):
            extra = None if snapshot is None else {"incomes_snapshot": snapshot}
            params = SamplingParams(
                max_tokens=max_tokens, min_tokens=max_tokens, temperature=0, logprobs=3, extra_args=extra
            )
            prompt = {"prompt_token_ids": ids} | ({} if snapshot is None else {"cache_salt": snapshot})
            self.llm.llm_engine.add_request(name, prompt, params)
        return names

    def _step(self) -> dict[str, Answer]:
        finished = [o for o in self.llm.llm_engine.step() if o.finished]
        return {
            o.request_id: (
                list(o.outputs[0].token_ids),
                [{token: p.logprob for token, p in step.items()} for step in o.outputs[0].logprobs],
            )
            for o in finished
        }

    def _finish(self, done: dict[str, Answer] | None = None) -> list[Answer]:
        done = dict(done or {})
        while self.llm.llm_engine.has_unfinished_requests():
            done |= self._step()
        return [done[f"request_{i}"] for i in range(len(done))]


def serve(pipe: Connection) -> None:
    if os.environ["VLLM_USE_V2_MODEL_RUNNER"] == "1":
        from triton_cpu import install

        install()
    engines = {name: Engine(options) for name, options in pipe.recv().items()}
    pipe.send((True, None))
    while (message := pipe.recv()) is not None:
        name, method, args = message
        pipe.send((True, getattr(engines[name], method)(*args)))


def main() -> None:
    pipe = Connection(int(sys.argv[1]))
    try:
        serve(pipe)
    except Exception:  # noqa: BLE001 - the other process must see whatever went wrong
        pipe.send((False, traceback.format_exc()))
    sys.stdout.flush()
    os._exit(0)  # nothing to save, and taking vLLM and torch down in order lasts seconds


if __name__ == "__main__":
    main()
