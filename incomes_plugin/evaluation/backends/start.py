"""Start a backend by name; nothing of it is imported before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from incomes_plugin.evaluation.interface import EditText, Generator


class Backend(StrEnum):
    """Where the model runs."""

    VLLM = "vllm"
    HF = "hf"


@contextmanager
def start_generator(
    backend: Backend, model: Path, *, largest: Sequence[EditText], max_context_tokens: int, dtype: str
) -> Iterator[Generator]:
    """A generator for the length of the block.

    Args:
        largest: the most edits that will be one pool; none for a method that keeps no pool.
        dtype: on vLLM; the reference runs in float32.
    """
    generator = _start(backend, model, largest, max_context_tokens, dtype)
    try:
        yield generator
    finally:
        generator.close()


def _start(
    backend: Backend, model: Path, largest: Sequence[EditText], max_context_tokens: int, dtype: str
) -> Generator:
    if backend is Backend.HF:
        from incomes_plugin.evaluation.backends.hf import HfGenerator

        return HfGenerator(model, max_context_tokens)
    from incomes_plugin.evaluation.backends.vllm import VllmGenerator

    return VllmGenerator(model, max_context_tokens, largest=largest, dtype=dtype)
