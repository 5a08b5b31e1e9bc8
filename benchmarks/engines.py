"""An engine in a process of its own, stock or with edits, driven by commands over a pipe.

Two such processes live side by side and work in turns, so that a ratio compares neighbours in time.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Prompts = list[list[int]]


@dataclass(frozen=True)
class EngineSpec:
    """How to start an engine.

    Attributes:
        adapter: None = stock vLLM.
    """

    base: Path
    adapter: Path | None = None
    max_model_len: int = 1024
    max_num_seqs: int = 16
    kv_cache_gib: int = 1
    pool_bytes: int = 2 << 30


@dataclass(frozen=True)
class Generated:
    """Result of one batch: seconds to the end, seconds to each request's first token, and the tokens."""

    seconds: float
    first_token_s: list[float]
    token_ids: list[list[int]]


class EngineProcess:
    """Handle of the child process; every method is one command and blocks until it is done."""

    def __init__(self, spec: EngineSpec) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, child = context.Pipe()
        self._process = context.Process(target=serve, args=(spec, child))
        self._process.start()
        child.close()
        self._receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.send(("close", ()))
        self._process.join(timeout=60)
        if self._process.is_alive():
            self._process.terminate()

    def generate(self, prompts: Prompts, max_tokens: int, edit_set: str | None = None) -> Generated:
        """Generate greedily for all prompts at once, under the snapshot of `edit_set`."""
        return self._call("generate", prompts, max_tokens, edit_set)

    def commit_random(self, edit_set: str, edits: int, tokens: int) -> None:
        """Fill an edit set with random gists."""
        self._call("commit_random", edit_set, edits, tokens)

    def commit_facts(self, texts: Prompts, edit_sets: dict[str, int]) -> None:
        """Capture edits given as token ids, and fill each edit set with so many, from the first one on."""
        self._call("commit_facts", texts, edit_sets)

    def capture(self, texts: Prompts) -> float:
        """Compress edits given as token ids; seconds."""
        return float(self._call("capture", texts))

    def _call(self, name: str, *args: object) -> Any:
        self._pipe.send((name, args))
        return self._receive()

    def _receive(self) -> Any:
        try:
            result = self._pipe.recv()
        except EOFError:
            raise RuntimeError("the engine process died, see its output above") from None
        if isinstance(result, Exception):
            raise result
        return result


def serve(spec: EngineSpec, pipe: Connection) -> None:
    """Body of the child process."""
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": str(spec.kv_cache_gib),
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_PLUGINS": "incomes" if spec.adapter else "none",
    }
    asyncio.run(run_commands(spec, pipe))
    # AsyncLLM.__del__ fails noisily when the interpreter is half gone.
    os._exit(0)


async def run_commands(spec: EngineSpec, pipe: Connection) -> None:
    """Answer commands until `close`."""
    from benchmarks.engine_child import Child

    loop = asyncio.get_running_loop()
    child = await Child.start(spec)
    pipe.send("started")
    try:
        while True:
            name, args = await loop.run_in_executor(None, pipe.recv)
            if name == "close":
                return
            try:
                pipe.send(await getattr(child, name)(*args))
            except Exception as error:  # noqa: BLE001 - whatever happens belongs to the parent
                pipe.send(RuntimeError(f"{name}: {error!r} because of {error.__cause__!r}"))
    finally:
        child.close()


def timer() -> float:
    """The clock of all measurements."""
    return time.perf_counter()
