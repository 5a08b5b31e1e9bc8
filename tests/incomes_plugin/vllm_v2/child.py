"""One vLLM engine in a process of its own, driven over a pipe by the `engine` fixture. Run as a script.

`child.py <fd>`: receives the options, builds the engine, then answers `(method, args)` messages until None comes.
Replies are `(True, value)` or `(False, traceback)`; values are plain lists, dicts, numbers and strings.
"""

from __future__ import annotations

import os
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

Answer = tuple[list[int], list[dict[int, float]]]


class Engine:
    """The methods a test may call."""

    def __init__(self, options: dict[str, Any]) -> None:
        if os.environ["VLLM_USE_V2_MODEL_RUNNER"] == "1":
            from triton_cpu import install

            install()
        from vllm import LLM

        self.llm = LLM(**options)

    def runner(self) -> str:
        """Module and class of the model runner in use."""
        kind = type(self._worker().model_runner)
        return f"{kind.__module__}.{kind.__qualname__}"

    def generate(
        self, prompts: list[list[int]], max_tokens: int, extra_args: list[dict[str, Any] | None] | None = None
    ) -> list[Answer]:
        """Greedy tokens and top-3 logprobs of each prompt, all sent at once."""
        from vllm import SamplingParams

        extras = extra_args or [None] * len(prompts)
        params = [
            SamplingParams(max_tokens=max_tokens, min_tokens=max_tokens, temperature=0, logprobs=3, extra_args=extra)
            for extra in extras
        ]
        inputs = [{"prompt_token_ids": ids} for ids in prompts]
        outputs = [o.outputs[0] for o in self.llm.generate(inputs, params, use_tqdm=False)]
        return [
            (list(o.token_ids), [{token: p.logprob for token, p in step.items()} for step in o.logprobs])
            for o in outputs
        ]

    def counter(self, name: str) -> int:
        """Value of a vLLM counter, e.g. `vllm:num_preemptions`."""
        return sum(metric.value for metric in self.llm.get_metrics() if metric.name == name)

    def reset_prefix_cache(self) -> bool:
        """Forget every cached block, so that the next prompt is computed in full."""
        return self.llm.reset_prefix_cache()

    def _worker(self) -> Any:
        return self.llm.llm_engine.model_executor.driver_worker.worker


def serve(pipe: Connection) -> None:
    engine = Engine(pipe.recv())
    pipe.send((True, engine.runner()))
    while (message := pipe.recv()) is not None:
        method, args = message
        pipe.send((True, getattr(engine, method)(*args)))


def main() -> None:
    pipe = Connection(int(sys.argv[1]))
    try:
        serve(pipe)
    except Exception:  # noqa: BLE001 - the other process must see whatever went wrong
        pipe.send((False, traceback.format_exc()))


if __name__ == "__main__":
    main()
