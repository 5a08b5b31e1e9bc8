"""Loops that numba compiles, for CPUs: `vllm/cpu_kernels.py` and `selection/pair_loops.py`.

These modules, and this one, are imported when a worker first needs them, no earlier: vLLM looks through all modules for
Triton kernels when a worker starts, and stumbles over numba's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from llvmlite.binding import ffi
from numba import njit

# llvmlite's library takes any attribute for a function of its own, `__dict__` too, which vLLM asks every object for
# when another engine starts in this process.
ffi.lib._fntab.setdefault("__dict__", {})

_MATHS = {"reassoc", "contract", "nsz", "arcp", "afn"}
"""What may be reordered. Infinities and NaN stay what they are."""

Loop = TypeVar("Loop", bound=Callable[..., Any])


def compiled(loop: Loop) -> Loop:
    """Compile at the first call. The result is kept on disk for the next process, where there is a place for it. Other
    threads go on while the loop runs."""
    try:
        return njit(fastmath=_MATHS, cache=True, nogil=True)(loop)
    except RuntimeError:  # no folder that numba may write to
        return njit(fastmath=_MATHS, nogil=True)(loop)
