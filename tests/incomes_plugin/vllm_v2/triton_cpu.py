"""A "cpu" entry for Triton's backend table, so that vLLM's V2 runner runs in CI without a GPU. Not product code.

What is patched, and why:

1. `TRITON_INTERPRET=1` must be in the environment before anything imports Triton: `triton.jit` then wraps every
   kernel in the NumPy interpreter (`triton/runtime/interpreter.py`), which needs no driver and no compiler. Child
   processes get it from `conftest.py`.
2. `triton.backends.backends["cpu"]`: `vllm/triton_utils/importing.py` sets `HAS_TRITON = False` on a CPU build of
   vLLM unless Triton lists a backend called "cpu". The published wheel has none (triton-cpu is a source build). The
   entry only has to exist and to say that it is active; the interpreter never asks it to compile or launch, so all
   else raises.
3. `VLLM_USE_V2_MODEL_RUNNER=1` (a documented vLLM setting) makes `VllmConfig.use_v2_model_runner` true; `CPUWorker`
   then takes `vllm/v1/worker/cpu/model_runner.py`, the V2 runner of the GPU with streams and events made no-ops by
   `vllm/v1/worker/cpu/shm.py`. Nothing of vLLM itself is patched by us.

The order matters: `install()` comes before the first `import vllm` of the process, which decides `HAS_TRITON` for
good. So V2 always runs in a process of its own, and a pytest process that has imported vLLM stays as it was.
"""

from __future__ import annotations

import os
from typing import NoReturn

import torch
from triton.backends import Backend, backends
from triton.backends.driver import DriverBase


class InterpreterDriver(DriverBase):
    """Active, and able to do nothing: kernels run in the interpreter."""

    @classmethod
    def is_active(cls) -> bool:
        return True

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def map_python_to_cpp_type(self, ty: str) -> NoReturn:
        raise NotImplementedError("the interpreter compiles nothing")

    def get_current_target(self) -> NoReturn:
        raise NotImplementedError("the interpreter has no target")

    def get_benchmarker(self) -> NoReturn:
        raise NotImplementedError("interpreted kernels are not benchmarked")


def install() -> None:
    """Add the backend. Call before the first import of vLLM."""
    assert os.environ.get("TRITON_INTERPRET") == "1", "set TRITON_INTERPRET=1 for the process"
    backends["cpu"] = Backend(compiler=None, driver=InterpreterDriver)  # type: ignore[arg-type]
