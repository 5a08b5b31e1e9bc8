"""Defaults that `incomes serve` gives vLLM: quiet logs, and on CPUs a start in seconds, not minutes. The user's own
flags win."""

from __future__ import annotations

import os
from collections.abc import MutableMapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from incomes_server.boot.logs import ENGINE_LOG
from incomes_server.settings import Settings

from incomes_plugin.errors import InvalidValue
from incomes_plugin.telemetry import TRACES_ENDPOINT

CPU_ENVIRONMENT = {
    # One process for engine core and worker instead of two: half the start time. vLLM allows that on CPUs only so.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # GiB. vLLM's default is most of the machine's memory.
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # A thread for each core but one: with as many as cores, a busy machine decodes 40 times slower.
    "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) - 1)),
}
CPU_RANKS_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": CPU_ENVIRONMENT["VLLM_CPU_KVCACHE_SPACE"],
    # vLLM binds each rank to a NUMA node of its own, and refuses to start where there are fewer.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}
"""Of a parallel engine, which has a process for each rank."""
CPU_ARGUMENTS = {
    "--distributed-executor-backend": ("uni",),
    # Compiling takes 30 to 95 s at the first start.
    "--enforce-eager": (),
    # vLLM's default of 128 tokens leaves short prompts out of the prefix cache.
    "--block-size": ("32",),
}
ONE_PROCESS = ("--distributed-executor-backend",)
OPPOSITES = {"--enforce-eager": "--no-enforce-eager"}
VLLM_TRACES = "--otlp-traces-endpoint"
OURS = ("--model", "--served-model-name", "--host", "--port", "--api-key")
PARALLEL = ("--tensor-parallel-size", "-tp", "--pipeline-parallel-size", "-pp", "--data-parallel-size", "-dp")


def is_cpu_package() -> bool:
    """Whether the installed vLLM is the CPU build. Cheap: imports nothing."""
    try:
        distribution("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True


def prepare_vllm(settings: Settings, extra: Sequence[str], environment: MutableMapping[str, str], *, cpu: bool) -> None:
    """Set the environment variables that vLLM reads when it is imported. Variables that are set already stay as they
    are."""
    environment.setdefault("VLLM_NO_USAGE_STATS", "1")
    # Standard output is for the lines of progress.
    environment.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    environment.setdefault("VLLM_LOGGING_LEVEL", "DEBUG" if settings.log_level == "debug" else "WARNING")
    if settings.log_format == "json":
        environment.setdefault("VLLM_LOGGING_CONFIG_PATH", str(ENGINE_LOG))
    if cpu:
        for name, value in (CPU_RANKS_ENVIRONMENT if uses_several_workers(extra) else CPU_ENVIRONMENT).items():
            environment.setdefault(name, value)


def vllm_arguments(settings: Settings, base_dir: Path, extra: Sequence[str], *, cpu: bool) -> list[str]:
    """vLLM's arguments: ours, then the user's, which win.

    Args:
        base_dir: of the base that `settings.model` names.

    Raises:
        InvalidValue: the user gives vLLM what both of us must know.
    """
    ours = next((a for a in extra if a.split("=")[0] in OURS), None)
    if ours is not None:
        raise InvalidValue(f"{ours} is an option of `incomes serve`: give it before the --", param=ours)
    own = ["--model", str(base_dir), "--served-model-name", settings.served_model_name]
    own += ["--host", settings.host, "--port", str(settings.port)]
    if cpu:
        left_out = ONE_PROCESS if uses_several_workers(extra) else ()
        for flag, values in CPU_ARGUMENTS.items():
            if OPPOSITES.get(flag) not in extra and flag not in left_out:
                own += [flag, *values]
    if (collector := os.environ.get(TRACES_ENDPOINT)) and not any(a.startswith(VLLM_TRACES) for a in extra):
        own += [VLLM_TRACES, collector]
    return [*own, *extra]


def uses_several_workers(extra: Sequence[str]) -> bool:
    """Whether the user asks for a parallel engine, which needs vLLM's own process layout."""
    return any(argument.split("=")[0] in PARALLEL for argument in extra)
