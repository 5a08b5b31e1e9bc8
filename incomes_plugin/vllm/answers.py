"""How long traced answers are, as the front-end counts them: the engine computes rows beyond an answer's end.

in: each engine request that vLLM's output processor follows (`register.py`); out: tokens of each answer, for the
worker, which keeps the weights of every row. Async scheduling computes a row after the last token, and a stop string is
found in the front-end while the engine goes on. Lives on the event loop; no locks.
"""

from __future__ import annotations

from typing import Any

from incomes_plugin.vllm.rows import RequestTag
from incomes_plugin.vllm.traces import Choice

ANSWERS_ATTRIBUTE = "incomes_answers"


class Answers:
    """Traced answers by the name of their trace, from the start of their request until `take`."""

    def __init__(self) -> None:
        self._detokenizers: dict[str, dict[Choice, Any]] = {}

    def follow(self, request: Any, state: Any) -> None:
        """An engine request has begun.

        Args:
            request: vLLM's `EngineCoreRequest`.
            state: its `RequestState`, whose detokenizer has the tokens of the answer, also after a stop or an abort.
        """
        params = request.sampling_params
        tag = RequestTag.parse(params.extra_args if params is not None else None)
        if tag is not None and tag.trace is not None:
            choice = (tag.prompt, answer_of(request.request_id))
            self._detokenizers.setdefault(tag.trace, {})[choice] = state.detokenizer

    def take(self, trace: str) -> dict[Choice, int]:
        """Tokens of each answer under a name, which is free again then; those of `usage`, a stop token included."""
        followed = self._detokenizers.pop(trace, {})
        return {choice: int(detokenizer.num_output_tokens()) for choice, detokenizer in followed.items()}


def answer_of(request_id: str) -> int:
    """Which answer to its prompt a request of vLLM makes: with n > 1, one request for each, `0_…`, `1_…`."""
    number, separator, _ = request_id.partition("_")
    return int(number) if separator and number.isdecimal() else 0
