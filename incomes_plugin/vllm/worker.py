"""The worker class vLLM starts: the platform's own worker with the selection layer in its model and RPCs for the pool.

`--worker-cls incomes_plugin.vllm.worker.EditWorker`; the class is made on first access, because its base depends on the
platform. RPC methods are called by `EditEngine` through `collective_rpc`, between two steps on every rank alike.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import vllm
from vllm.logger import init_logger
from vllm.platforms import current_platform
from vllm.utils.import_utils import resolve_obj_by_qualname

from incomes_plugin.errors import CompressionFailed, UnsupportedEngine
from incomes_plugin.facts.gate import FactGate, FactMemory, Tally
from incomes_plugin.gist import dump_gists, load_gists, model_fingerprint
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.pool.pages import GistPool
from incomes_plugin.vllm import rows_v1
from incomes_plugin.vllm.config import PluginConfig
from incomes_plugin.vllm.inject import install
from incomes_plugin.vllm.reader import PoolReader
from incomes_plugin.vllm.wire import Answer, answers_errors

if TYPE_CHECKING:
    from incomes_plugin.vllm.runtime import SelectionRuntime

logger = init_logger("vllm.incomes.worker")


class EditWorkerMixin:
    """What is added to the platform's worker."""

    incomes_runtime: SelectionRuntime
    incomes_fingerprint: str

    def load_model(self: Any, **kwargs: Any) -> None:
        """Load the model, then install the selection layer before profiling and graph capture."""
        super().load_model(**kwargs)  # type: ignore[misc]
        model_dir = Path(self.vllm_config.model_config.model)
        adapter = EditAdapter.load(model_dir)
        self.incomes_fingerprint = model_fingerprint(model_dir, self.vllm_config.model_config.dtype)
        self.incomes_runtime = install(self.vllm_config, self.model_runner.get_model(), adapter)
        logger.info("selection layer in layers %s, model %s", adapter.shape.layers, self.incomes_fingerprint)

    def determine_available_memory(self: Any) -> int:
        """Leave room for the pool, unless the size of the KV cache was given."""
        available = int(super().determine_available_memory())  # type: ignore[misc]
        if self.cache_config.kv_cache_memory_bytes is not None:
            return available
        config, shape = PluginConfig.of(self.vllm_config), self.incomes_runtime.adapter.shape
        pool_bytes = config.pool_gists * shape.bytes_per_gist(self.incomes_runtime.heads.dtype)
        if pool_bytes >= available:
            raise UnsupportedEngine(f"the gist pool takes {pool_bytes} of {available} free bytes; lower pool_gists")
        return available - pool_bytes

    def initialize_from_config(self: Any, kv_cache_config: Any) -> None:
        """Allocate the pool beside the KV cache, in its layout, and hook into the model runner."""
        super().initialize_from_config(kv_cache_config)  # type: ignore[misc]
        runtime: SelectionRuntime = self.incomes_runtime
        context = self.vllm_config.compilation_config.static_forward_context
        attention = next(a for a in context.values() if hasattr(getattr(a, "impl", None), "incomes_layer"))
        reader = PoolReader(self.vllm_config, attention, runtime.heads.device)
        num_pages = -(-PluginConfig.of(self.vllm_config).pool_gists // reader.layout.page_size)
        storage = torch.zeros(
            (len(runtime.layers), num_pages, reader.layout.page_numel),
            dtype=runtime.heads.dtype,
            device=runtime.heads.device,
        )
        zero_keys = runtime.adapter.zero_keys.to(storage.device, storage.dtype)
        max_gists = None if runtime.adapter.router is None else runtime.adapter.shape.max_gists
        memory = _fact_memory(self.vllm_config, runtime)
        runtime.bind(GistPool(storage, reader.layout, zero_keys, max_gists, memory), reader)
        rows = _rows_module(self.use_v2_model_runner)
        rows.install(self.model_runner, runtime)

    @answers_errors
    def incomes_handshake(self: Any) -> Answer:
        """Identity of this rank's model, plugin state and pool."""
        usage = self.incomes_runtime.pool.usage()
        return {
            "fingerprint": self.incomes_fingerprint,
            "vllm_version": vllm.__version__,
            "runner": "v2" if self.use_v2_model_runner else "v1",
            "layers": list(self.incomes_runtime.adapter.shape.layers),
            "capacity_gists": usage.capacity_gists,
            "free_gists": usage.free_gists,
            "page_size": usage.page_size,
            "snapshots": usage.snapshots,
            "num_steps": self.incomes_runtime.num_steps,
            "fact_gate": self.incomes_runtime.pool.fact_gate(),
        }

    @answers_errors
    def incomes_commit(self: Any, delta: Answer) -> Answer:
        """Retire what nobody reads, then make the new snapshot."""
        pool = self.incomes_runtime.pool
        for snapshot_id in delta["retire"]:
            pool.retire(snapshot_id)
        gists = [gist for blob in delta["added"] for gist in load_gists(bytes(blob), self.incomes_fingerprint)]
        removed = [(str(edit_id), int(version)) for edit_id, version in delta["removed"]]
        snapshot = pool.commit(
            delta["edit_set"], delta["base"], delta["snapshot"], delta["num_edits"], gists, removed, delta["ages"]
        )
        return {"entries": snapshot.num_entries}

    @answers_errors
    def incomes_retire(self: Any, snapshot_ids: list[str]) -> Answer:
        """Let go of snapshots; their pages return when the last request that holds them leaves."""
        for snapshot_id in snapshot_ids:
            self.incomes_runtime.pool.retire(snapshot_id)
        return {}

    @answers_errors
    def incomes_forget(self: Any, edit_set: str) -> Answer:
        """Forget the newest snapshot of a set as base of commits; the next commit starts from the empty pool."""
        self.incomes_runtime.pool.forget(edit_set)
        return {}

    @answers_errors
    def incomes_take_captures(self: Any, wanted: list[list[Any]]) -> Answer:
        """Finished gists of `[capture id, edit id, version]`, one blob or error each."""
        taken: list[list[Any]] = []
        for name, edit_id, version in wanted:
            try:
                gist = self.incomes_runtime.captures.take(name, edit_id, version)
            except CompressionFailed as error:
                taken.append([None, 0, error.message])
            else:
                taken.append([dump_gists([gist], self.incomes_fingerprint), gist.num_gists, None])
        return {"captures": taken}

    @answers_errors
    def incomes_take_trace(self: Any, trace: str) -> Answer:
        """Attribution of a finished request, if it was traced."""
        found = self.incomes_runtime.take_trace(trace)
        if found is None:
            return {"found": False}
        return {"found": True, "none_weight": found.none_weight, "applied": [list(a) for a in found.applied]}


def _fact_memory(vllm_config: Any, runtime: SelectionRuntime) -> FactMemory | None:
    """The memory of no edits; None where all entries are searched."""
    capacity = PluginConfig.of(vllm_config).fact_gate_entries
    if not capacity:
        return None
    if runtime.adapter.router is None:
        raise UnsupportedEngine("fact_gate_entries needs a model with routed selection; set it to 0")
    gate = FactGate.load(Path(vllm_config.model_config.model))
    return FactMemory.empty(gate.to(runtime.heads.device), capacity, Tally())


def _rows_module(use_v2_model_runner: bool) -> Any:
    if use_v2_model_runner:
        from incomes_plugin.vllm import rows_v2

        return rows_v2
    return rows_v1


@cache
def _worker_class() -> type:
    base = _platform_worker()
    return type("EditWorker", (EditWorkerMixin, base), {"__module__": __name__})


def _platform_worker() -> Any:
    if current_platform.is_cpu():
        return resolve_obj_by_qualname("vllm.v1.worker.cpu_worker.CPUWorker")
    if current_platform.is_cuda_alike():
        return resolve_obj_by_qualname("vllm.v1.worker.gpu_worker.Worker")
    raise UnsupportedEngine(f"platform {current_platform.device_name}: edits run on CPU and CUDA")


def __getattr__(name: str) -> Any:
    if name == "EditWorker":
        return _worker_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
