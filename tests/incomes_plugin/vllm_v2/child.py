"""What the tests of the V2 runner ask of an engine in its child process beyond `vllm/lab.py`."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.incomes_plugin.vllm.lab import Job, LabEngine


class V2Engine(LabEngine):
    """One `LLM` on the V2 runner."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.worker = self.core.model_executor.driver_worker.worker
        self.events: list[tuple[str, Any]] = []

    def runner(self) -> str:
        """Module and class of the model runner in use."""
        kind = type(self.worker.model_runner)
        return f"{kind.__module__}.{kind.__qualname__}"

    def watch(self) -> None:
        """Record every plan of the runtime from now on."""
        begin, end = self.runtime.begin_step, self.runtime.end_step

        def begin_step(spans: Any, positions: Any, *others: Any) -> None:
            laid_out = [(s.request_id, s.index, s.first_row, s.num_rows, s.first_position) for s in spans]
            self.events.append(("begin", (laid_out, positions.tolist())))
            begin(spans, positions, *others)

        def end_step(ran: bool) -> None:
            self.events.append(("end", None))
            end(ran)

        self.runtime.begin_step, self.runtime.end_step = begin_step, end_step

    def watched(self) -> list[tuple[str, Any]]:
        """Events since the last call."""
        events, self.events = self.events, []
        return events

    def dummy_run(self) -> bool:
        """A dummy and a profiling run; whether a plan is left behind."""
        self.worker.model_runner._dummy_run(8)
        self.worker.model_runner.profile_run()
        return self.runtime.plan is not None

    def dispatch(self, mode: str, batch: tuple[int, int, int | None], job: Job) -> str:
        """Kind of CUDA graph that a batch gets while `job` is resident.

        The graph manager is vLLM's own with capture sizes of a GPU; only the capture itself is pretended.
        """
        from incomes_plugin.vllm.rows_v2 import V2Rows

        with self._resident(job), self._graph_manager(mode):
            rows = V2Rows(self.worker.model_runner, self.runtime)
            num_reqs, num_tokens, uniform = batch
            return rows.dispatch(num_reqs, num_tokens, uniform, num_active_loras=0, max_query_len=uniform).cg_mode.name

    def step_with_another_manager(self, job: Job) -> str:
        """What a step says when vLLM has exchanged the graph manager that our guard sits on."""
        from incomes_plugin.errors import SelectionFailed

        with self._resident(job), self._graph_manager("NONE"):
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

    @contextmanager
    def _resident(self, job: Job) -> Iterator[None]:
        """One request, prefilled and still running."""
        name = self._start(job)
        self._step()
        yield
        self.core.abort_request([name])
        self.run([Job((1, 3), max_tokens=1)])  # the runner drops the aborted request with its next step

    @contextmanager
    def _graph_manager(self, mode: str) -> Iterator[None]:
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
