"""Rows of a step under vLLM's V1 model runner: wraps of `_update_states` and of `_model_forward`.

`_update_states` runs at the start of every step, also of an empty one, and is told which requests are new and which
have ended. `_model_forward` runs once in a real step and never in a dummy or profiling step; the logits of the step's
requests are computed right after it.
"""

from __future__ import annotations

from typing import Any

from incomes_plugin.errors import SelectionFailed
from incomes_plugin.vllm.rows import RowSpan, StepObserver


def install(runner: Any, runtime: StepObserver) -> None:
    """Make `runtime` follow every request and every real step of a V1 `runner`."""
    update_states, forward = runner._update_states, runner._model_forward
    known: set[str] = set()

    def follow_requests(scheduler_output: Any) -> Any:
        runtime.check_step()
        for request_id in scheduler_output.finished_req_ids:
            known.discard(request_id)
            runtime.remove_request(request_id)
        corrections = update_states(scheduler_output)
        for new in scheduler_output.scheduled_new_reqs:
            params = new.sampling_params
            prompt_tokens = runner.requests[new.req_id].num_prompt_tokens
            runtime.add_request(new.req_id, params.extra_args if params else None, prompt_tokens)
            known.add(new.req_id)
        return corrections

    def model_forward(input_ids: Any = None, positions: Any = None, *args: Any, **kwargs: Any) -> Any:
        if len(known) != len(runner.requests):
            raise SelectionFailed("the model runner holds requests that did not pass the edit hooks")
        if not runtime.tagged:
            return forward(input_ids, positions, *args, **kwargs)
        if input_ids is None:
            raise SelectionFailed("a step of embeddings in place of tokens cannot carry edits")
        ran = False
        try:
            runtime.begin_step(_spans(runner, runtime), positions, input_ids, len(runner.input_batch.req_ids))
            output = forward(input_ids, positions, *args, **kwargs)
            ran = True
            return output
        finally:
            runtime.end_step(ran)

    runner._update_states, runner._model_forward = follow_requests, model_forward


def _spans(runner: Any, runtime: StepObserver) -> list[RowSpan]:
    batch, starts = runner.input_batch, runner.query_start_loc.np
    return [
        RowSpan(request_id, i, int(starts[i]), int(starts[i + 1] - starts[i]), int(batch.num_computed_tokens_cpu[i]))
        for i, request_id in enumerate(batch.req_ids)
        if request_id in runtime.tagged
    ]
