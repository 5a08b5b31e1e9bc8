"""Rows of a step under vLLM's V1 model runner: one wrap of `_model_forward`, called once per real step."""

from __future__ import annotations

from typing import Any

from incomes_plugin.vllm.rows import RowSpan, StepObserver


def install(runner: Any, runtime: StepObserver) -> None:
    """Wrap `runner._model_forward` so that `runtime` knows the rows of every real step."""
    forward = runner._model_forward
    seen: set[str] = set()

    def sync_requests() -> None:
        """Tell the runtime which requests came and went; O(batch) set arithmetic without Python work per known row."""
        for request_id in seen.difference(runner.requests):
            runtime.remove_request(request_id)
            seen.discard(request_id)
        for request_id in runner.input_batch.req_ids:
            if request_id not in seen:
                state = runner.requests[request_id]
                params = state.sampling_params
                runtime.add_request(request_id, params.extra_args if params else None, state.num_prompt_tokens)
                seen.add(request_id)

    def model_forward(input_ids: Any = None, positions: Any = None, *args: Any, **kwargs: Any) -> Any:
        sync_requests()
        if not runtime.tagged:
            return forward(input_ids, positions, *args, **kwargs)
        try:
            runtime.begin_step(_spans(runner, runtime), positions)
            return forward(input_ids, positions, *args, **kwargs)
        finally:
            runtime.end_step()

    runner._model_forward = model_forward


def _spans(runner: Any, runtime: StepObserver) -> list[RowSpan]:
    batch = runner.input_batch
    starts = runner.query_start_loc.np
    spans = []
    for i, request_id in enumerate(batch.req_ids):
        if request_id in runtime.tagged:
            first = int(starts[i])
            spans.append(RowSpan(request_id, first, int(starts[i + 1]) - first, int(batch.num_computed_tokens_cpu[i])))
    return spans
