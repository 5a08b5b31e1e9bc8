"""Rows of a step under vLLM's V2 model runner: its `ModelState` hooks, bracketed by `execute_model`.

One step of the V2 runner is `execute_model(...)`: finished and preempted requests go to `ModelState.remove_request`,
new and resumed ones to `add_request`; a CUDA graph is chosen (`cudagraph_manager.dispatch`); the batch is laid out and
`ModelState.prepare_inputs` called; the model runs. Dummy, profiling and graph-capture runs pass the same way with
request ids that no `add_request` announced, so they have no tagged rows and see no plan.

A FULL CUDA graph holds the attention of the stock model: replayed for a step with edits it would leave them out
without a word. So while a tagged request is resident, `dispatch` is kept from choosing one (PIECEWISE graphs and
eager steps run the attention op in Python and need nothing), and `run_fullgraph` refuses a planned step all the same.
"""

from __future__ import annotations

from typing import Any

from incomes_plugin.errors import SelectionFailed, UnsupportedEngine
from incomes_plugin.vllm.rows import RowSpan, StepObserver
from incomes_plugin.vllm.touches import V2_TOUCHES, assert_touches

ATTENTION_OP = "vllm::unified_attention_with_output"


class V2Rows:
    """The wrapped methods of one runner, its model state and its CUDA graph manager."""

    def __init__(self, runner: Any, runtime: StepObserver) -> None:
        self._runner = runner
        self._runtime = runtime
        self._known: set[str] = set(runner.req_states.req_id_to_index)
        self._staying: set[str] = set()
        self._planned = False
        self._manager = runner.cudagraph_manager
        state, manager = runner.model_state, self._manager
        self._add, self._remove, self._prepare = state.add_request, state.remove_request, state.prepare_inputs
        self._execute, self._dispatch, self._replay = runner.execute_model, manager.dispatch, manager.run_fullgraph

    def attach(self) -> None:
        """Put the methods below in front of vLLM's."""
        state = self._runner.model_state
        state.add_request, state.remove_request = self.add_request, self.remove_request
        state.prepare_inputs = self.prepare_inputs
        self._runner.execute_model = self.execute_model
        self._manager.dispatch, self._manager.run_fullgraph = self.dispatch, self.run_fullgraph

    def add_request(self, req_index: int, new_req_data: Any) -> None:
        """A new request, or one that comes back after a preemption."""
        self._add(req_index, new_req_data)
        params = new_req_data.sampling_params
        extra_args = params.extra_args if params is not None else None
        self._runtime.add_request(new_req_data.req_id, extra_args, new_req_data.prompt_len)
        self._known.add(new_req_data.req_id)

    def remove_request(self, req_id: str) -> None:
        """A request that finished, was preempted, or is about to be added.

        A preempted request keeps tag, snapshot and picks: the snapshot may be retired before the request comes back.
        """
        self._remove(req_id)
        self._known.discard(req_id)
        if req_id not in self._staying:
            self._runtime.remove_request(req_id)

    def prepare_inputs(self, input_batch: Any, req_states: Any) -> dict[str, Any]:
        """Plan the step, when the batch is laid out and the model has not run yet."""
        if len(self._known) != len(req_states.req_id_to_index):
            raise SelectionFailed("the model runner holds requests that did not pass the edit hooks")
        if spans := self._spans(input_batch):
            if self._runner.cudagraph_manager is not self._manager:
                raise SelectionFailed("the CUDA graph manager was replaced after start-up; edits would be left out")
            self._planned = True
            self._runtime.begin_step(spans, input_batch.positions, input_batch.input_ids, input_batch.num_reqs)
        inputs: dict[str, Any] = self._prepare(input_batch, req_states)
        return inputs

    def execute_model(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        """Run one step and drop its plan, whatever happens."""
        self._runtime.check_step()
        self._staying = _staying(scheduler_output)
        ran = False
        try:
            output = self._execute(scheduler_output, *args, **kwargs)
            ran = True
            return output
        finally:
            if self._planned:
                self._planned = False
                self._runtime.end_step(ran)

    def dispatch(
        self,
        num_reqs: int,
        num_tokens: int,
        uniform_token_count: int | None,
        num_active_loras: int,
        max_query_len: int | None = None,
        num_ubatches: int = 1,
    ) -> Any:
        """Choose a graph as vLLM does; while tagged requests are resident, the best one that is not FULL."""
        sizes = (num_reqs, num_tokens)
        chosen = self._dispatch(*sizes, uniform_token_count, num_active_loras, max_query_len, num_ubatches)
        if self._runtime.recalling and self._manager.use_breakable_cg:
            return _eager(chosen, *sizes)  # these graphs are replayed without a call of the model: no vectors get in
        if not (self._runtime.tagged and _is_full(chosen)):
            return chosen
        # FULL decode graphs match uniform or bounded query lengths only: without those, the mixed-batch graphs remain.
        mixed = self._dispatch(*sizes, None, num_active_loras, None, num_ubatches)
        return _eager(mixed, *sizes) if _is_full(mixed) else mixed

    def run_fullgraph(self, desc: Any) -> Any:
        """Replay a FULL graph, but never for a step with edits."""
        if self._planned:
            raise SelectionFailed("a FULL CUDA graph was chosen for a step with edits; it would leave them out")
        return self._replay(desc)

    def _spans(self, input_batch: Any) -> list[RowSpan]:
        tagged = self._runtime.tagged
        if not tagged:
            return []
        starts, computed = input_batch.query_start_loc_np, input_batch.num_computed_tokens_np
        return [
            RowSpan(request_id, i, int(starts[i]), int(starts[i + 1] - starts[i]), int(computed[i]))
            for i, request_id in enumerate(input_batch.req_ids)
            if request_id in tagged
        ]


def install(runner: Any, runtime: StepObserver) -> None:
    """Make `runtime` follow every request and every real step of a V2 `runner`. Call once the KV cache exists.

    Raises:
        UnsupportedEngine: another vLLM than the one this was written for, or a feature that moves rows.
    """
    assert_touches(V2_TOUCHES)
    _refuse_unproven(runner)
    V2Rows(runner, runtime).attach()


def _refuse_unproven(runner: Any) -> None:
    """Features that move, split or drop rows between `prepare_inputs` and the attention layers."""
    from vllm.v1.worker.gpu.model_states.default import DefaultModelState

    mode = runner.cudagraph_manager.cudagraph_mode
    compilation = runner.compilation_config
    splits = compilation.splitting_ops is None or ATTENTION_OP in compilation.splitting_ops
    refused = {
        f"model state {type(runner.model_state).__name__}": type(runner.model_state) is not DefaultModelState,
        "multi-dimensional rotary positions": getattr(runner.model_state, "rope_state", None) is not None,
        "pooling models": runner.is_pooling_model,
        "speculative decoding": runner.speculative_config is not None,
        "prefill context parallelism": runner.pcp_manager is not None,
        "sampling in shards of the batch": runner.batch_sharder is not None,
        "dual batch overlap": runner.ubatch_runner is not None,
        "KV-sharing fast prefill": runner.fast_prefill is not None,
        "FULL CUDA graphs with data parallelism": runner.dp_size > 1 and mode.has_full_cudagraphs(),
        "piecewise CUDA graphs that contain attention": mode.has_piecewise_cudagraphs()
        and not (splits or runner.cudagraph_manager.use_breakable_cg),
    }
    if found := [name for name, present in refused.items() if present]:
        raise UnsupportedEngine(f"edits are not proven on the V2 model runner with: {', '.join(found)}")


def _staying(scheduler_output: Any) -> set[str]:
    """Requests the runner drops in this step although they go on: preempted now, or added again after a preemption."""
    added = {request.req_id for request in scheduler_output.scheduled_new_reqs}
    return (added | (scheduler_output.preempted_req_ids or set())) - scheduler_output.finished_req_ids


def _is_full(desc: Any) -> bool:
    from vllm.config.compilation import CUDAGraphMode

    return bool(desc.cg_mode == CUDAGraphMode.FULL)


def _eager(desc: Any, num_reqs: int, num_tokens: int) -> Any:
    """The descriptor `dispatch` itself returns when no graph fits."""
    from vllm.config.compilation import CUDAGraphMode

    return type(desc)(
        cg_mode=CUDAGraphMode.NONE,
        num_tokens=num_tokens,
        num_reqs=num_reqs,
        num_active_loras=desc.num_active_loras,
        num_ubatches=desc.num_ubatches,
    )
