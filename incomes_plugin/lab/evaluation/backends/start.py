"""Start a backend by name; nothing of it is imported before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum

from incomes_plugin.lab.evaluation.interface import EvalEdit, Generator
from incomes_plugin.model.resolve import Served


class Backend(StrEnum):
    """Where the model runs."""

    VLLM = "vllm"
    HF = "hf"


@contextmanager
def start_generator(
    backend: Backend, served: Served, *, largest: Sequence[EvalEdit], max_context_tokens: int, dtype: str
) -> Iterator[Generator]:
    """A generator for the length of the block.

    Args:
        largest: the most edits that will be one pool; none where no method keeps a pool.
        dtype: on vLLM; the reference runs in float32.
    """
    generator = _start(backend, served, largest, max_context_tokens, dtype)
    try:
        yield generator
    finally:
        generator.close()


def _start(
    backend: Backend, served: Served, largest: Sequence[EvalEdit], max_context_tokens: int, dtype: str
) -> Generator:
    if backend is Backend.HF:
        from incomes_plugin.lab.evaluation.backends.hf import HfGenerator

        return HfGenerator(served.base_dir, served.adapter_dir, max_context_tokens)
    from incomes_plugin.lab.evaluation.backends.vllm import VllmGenerator

    return VllmGenerator(served.base_dir, served.adapter_dir, max_context_tokens, largest=largest, dtype=dtype)
