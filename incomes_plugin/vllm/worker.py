"""The worker class vLLM starts: the platform's own worker with the selection layer in its model and RPCs for the pool.

`--worker-cls incomes_plugin.vllm.worker.EditWorker`; the class is made on first access, because its base depends on the
platform. RPC methods are called by `EditEngine` through `collective_rpc`, between two steps on every rank alike.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import vllm
from vllm.logger import init_logger
from vllm.platforms import current_platform
from vllm.utils.import_utils import resolve_obj_by_qualname

from incomes_plugin.errors import CompressionFailed, UnsupportedEngine
from incomes_plugin.gist import dump_gists, load_gists, model_fingerprint
from incomes_plugin.gist.edit import Captured
from incomes_plugin.gist.spelling import COLUMNS, Spelling
from incomes_plugin.gist.types import SPELLED_PER_TOKEN
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.pool.comparing import compare
from incomes_plugin.pool.gists import GistPool, room_for
from incomes_plugin.pool.table import ROW_TOKENS
from incomes_plugin.telemetry import export_traces
from incomes_plugin.vllm import rows_v1
from incomes_plugin.vllm.config import PluginConfig
from incomes_plugin.vllm.inject import install
from incomes_plugin.vllm.kv_cache import CachedHeads
from incomes_plugin.vllm.status import WorkerStatus
from incomes_plugin.vllm.wire import RpcAnswer, answers_errors, pack_captures, pack_compared, pack_trace, unpack_delta

if TYPE_CHECKING:
    from incomes_plugin.vllm.runtime import SelectionRuntime

logger = init_logger("vllm.incomes.worker")


class EditWorkerMixin:
    """What is added to the platform's worker."""

    incomes_runtime: SelectionRuntime
    incomes_fingerprint: str

    def load_model(self: Any, **kwargs: Any) -> None:
        """Load the base, then install the selection layer before profiling and graph capture."""
        super().load_model(**kwargs)  # type: ignore[misc]
        export_traces("engine")
        base_dir, adapter_dir = Path(self.vllm_config.model_config.model), PluginConfig.of(self.vllm_config).adapter
        adapter = EditAdapter.for_base(adapter_dir, base_dir)
        self.incomes_fingerprint = model_fingerprint(base_dir, adapter_dir, self.vllm_config.model_config.dtype)
        self.incomes_runtime = install(self.vllm_config, self.model_runner.get_model(), adapter)
        logger.info("edits are read in layers %s, model %s", adapter.shape.layers, self.incomes_fingerprint)

    def determine_available_memory(self: Any) -> int:
        """Leave room for what the pool keeps on the device, unless the size of the KV cache was given."""
        available = int(super().determine_available_memory())  # type: ignore[misc]
        if self.cache_config.kv_cache_memory_bytes is not None:
            return available
        runtime: SelectionRuntime = self.incomes_runtime
        wanted = device_room(
            PluginConfig.of(self.vllm_config),
            runtime.adapter,
            runtime.dtype,
            self.vllm_config.scheduler_config.max_num_seqs,
        )
        if wanted >= available:
            raise UnsupportedEngine(
                f"edits take {wanted} of {available} free bytes on the device; lower pool_bytes or --max-num-seqs"
            )
        return available - wanted

    def initialize_from_config(self: Any, kv_cache_config: Any) -> None:
        """Make the pool, find out the layout of the KV cache, and hook into the model runner."""
        super().initialize_from_config(kv_cache_config)  # type: ignore[misc]
        runtime: SelectionRuntime = self.incomes_runtime
        _check_one_block_table(runtime, kv_cache_config)
        config = PluginConfig.of(self.vllm_config)
        pool = GistPool(
            runtime.adapter,
            capacity_bytes=config.pool_bytes,
            device=runtime.device,
            dtype=runtime.dtype,
            device_bytes=config.device_bytes,
            index_from_edits=config.index_from_edits,
            kv_heads=runtime.ranks.own(runtime.adapter.shape.num_kv_heads),
        )
        runtime.bind(pool, CachedHeads(runtime.layers, runtime.dtype, runtime.ranks))
        rows = _rows_module(self.use_v2_model_runner)
        rows.install(self.model_runner, runtime)

    @answers_errors
    def incomes_handshake(self: Any) -> RpcAnswer:
        """Identity of this rank's model, plugin state and pool."""
        runtime: SelectionRuntime = self.incomes_runtime
        runner = "v2" if self.use_v2_model_runner else "v1"
        layers, usage, steps = runtime.adapter.shape.layers, runtime.pool.usage(), runtime.num_steps
        return asdict(
            WorkerStatus(self.incomes_fingerprint, vllm.__version__, runner, layers, steps, usage, runtime.figures)
        )

    @answers_errors
    def incomes_commit(self: Any, packed: RpcAnswer) -> RpcAnswer:
        """Retire what nobody reads, then make the new snapshot."""
        pool = self.incomes_runtime.pool
        delta, retire = unpack_delta(packed)
        for snapshot_id in retire:
            pool.retire(snapshot_id)
        gists = tuple(gist for blob in delta.added for gist in load_gists(blob, self.incomes_fingerprint))
        snapshot = pool.commit(delta.holding(gists))
        return {"edits": snapshot.num_edits, "verbatim": snapshot.table.num_verbatim}

    @answers_errors
    def incomes_retire(self: Any, snapshot_ids: list[str]) -> RpcAnswer:
        """Retire snapshots. Their bytes are free when the last request that holds them has ended."""
        for snapshot_id in snapshot_ids:
            self.incomes_runtime.pool.retire(snapshot_id)
        return {}

    @answers_errors
    def incomes_forget(self: Any, edit_set: str) -> RpcAnswer:
        """Forget the newest snapshot of a set, so that the next commit starts from the empty pool."""
        self.incomes_runtime.pool.forget(edit_set)
        return {}

    @answers_errors
    def incomes_take_captures(self: Any, wanted: list[list[Any]]) -> RpcAnswer:
        """What became of the captures `[capture id, edit id, version, whether it is a verbatim edit, spelling]`; a
        spelling is token, place and link of each of its tokens, one after the other."""
        return pack_captures([_captured(self, *each) for each in wanted])

    @answers_errors
    def incomes_take_leads(self: Any, trace: str) -> RpcAnswer:
        """Verbatim edits among the picks of a probe's prompts that one leads, `[prompt, edit id, version]` each."""
        return {"leads": self.incomes_runtime.leads.take(trace)}

    @answers_errors
    def incomes_put_vectors(self: Any, name: str, data: bytes, count: int) -> RpcAnswer:
        """Keep the vectors of a recall that comes next."""
        self.incomes_runtime.recalls.put(name, data, count)
        return {}

    @answers_errors
    def incomes_drop_vectors(self: Any, name: str) -> RpcAnswer:
        """Of a recall that does not come; how many others have vectors here."""
        self.incomes_runtime.recalls.drop(name)
        return {"left": len(self.incomes_runtime.recalls)}

    @answers_errors
    def incomes_compare(self: Any, edit_set: str, new: list[bytes], others: list[bytes]) -> RpcAnswer:
        """With what each of the new gists of an edit set is in conflict."""
        gists, beside = (
            [gist for blob in blobs for gist in load_gists(blob, self.incomes_fingerprint)] for blobs in (new, others)
        )
        return pack_compared(compare(self.incomes_runtime.pool, edit_set, gists, beside))

    @answers_errors
    def incomes_take_trace(self: Any, trace: str, tokens: list[list[int]]) -> RpcAnswer:
        """Attribution of a finished request, if it was traced; `tokens` are `[prompt, answer, number]` each."""
        counted = {(int(prompt), int(answer)): int(number) for prompt, answer, number in tokens}
        return pack_trace(self.incomes_runtime.take_trace(trace, counted))


def _captured(
    worker: EditWorkerMixin, name: str, edit_id: str, version: int, verbatim: bool, spelled: list[int]
) -> Captured:
    spelling = Spelling.of(zip(*[iter(spelled)] * 3, strict=True))
    try:
        gist = worker.incomes_runtime.captures.take(name, edit_id, version, spelling)
    except CompressionFailed as error:
        return Captured(edit_id, version, None, error.message)
    return Captured(edit_id, version, dump_gists([replace(gist, verbatim=verbatim)], worker.incomes_fingerprint))


def device_room(config: PluginConfig, adapter: EditAdapter, dtype: torch.dtype, max_num_seqs: int) -> int:
    """Bytes on the device beside model and KV cache, when the pool is full of edits of `ROW_TOKENS` tokens.

    Counted are the route keys and the room for their arenas to grow, then picked edits, and the picks of all requests
    side by side.
    """
    edit_bytes = room_for(adapter, dtype, 1, ROW_TOKENS - 1)
    route_key_bytes = config.pool_bytes // edit_bytes * room_for(adapter, dtype, 1, 0)
    shape = adapter.shape
    read_bytes = shape.read_dim * torch.float32.itemsize
    table_and_cover_bytes = (COLUMNS + 1) * torch.int64.itemsize
    copied = adapter.copier.config["copy_dim"] * torch.float32.itemsize + table_and_cover_bytes
    token_bytes = read_bytes + round(SPELLED_PER_TOKEN * copied)
    batch_bytes = max_num_seqs * adapter.rules.most_picks * ROW_TOKENS * token_bytes
    return route_key_bytes + config.device_bytes + batch_bytes


def _check_one_block_table(runtime: SelectionRuntime, kv_cache_config: Any) -> None:
    """Raise UnsupportedEngine unless all layers that routing and reading look at share one block table."""
    names = {layer.attention.layer_name for layer in runtime.layers.values()}
    if not any(names <= set(group.layer_names) for group in kv_cache_config.kv_cache_groups):
        raise UnsupportedEngine("edits are not supported with several groups of KV cache blocks (hybrid models)")


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
