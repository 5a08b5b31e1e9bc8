"""Put the selection layer into a loaded model: swap the class of each gist layer's attention impl.

The impl runs inside `vllm::unified_attention_with_output`, which torch.compile treats as opaque, so nothing that was
traced changes. What has not been proven together with edits is refused here, with the setting to change.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from vllm.config import VllmConfig, get_layers_from_vllm_config
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.models.utils import extract_layer_index
from vllm.v1.attention.backend import AttentionType

from incomes_plugin.errors import UnsupportedEngine
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.vllm.config import refuse_rotary_query
from incomes_plugin.vllm.layer import GistLayer
from incomes_plugin.vllm.runtime import HeadShape, SelectionRuntime


def install(vllm_config: VllmConfig, model: torch.nn.Module, adapter: EditAdapter) -> SelectionRuntime:
    """Wrap the gist layers of `model` and return the runtime that steers them.

    Raises:
        UnsupportedEngine: a configuration or architecture the selection layer has not been proven on.
    """
    for reason in unsupported(vllm_config):
        raise UnsupportedEngine(f"edits are not supported with {reason}")
    refuse_rotary_query(adapter)
    attentions = _gist_attentions(vllm_config, adapter)
    first = attentions[0]
    heads = HeadShape(first.num_heads, first.num_kv_heads, first.head_size, first.dtype, _device_of(model))
    layers = [_gist_layer(i, a, model, adapter, heads) for i, a in enumerate(attentions)]
    runtime = SelectionRuntime(adapter, layers, heads)
    for attention, layer in zip(attentions, layers, strict=True):
        _swap_impl(attention, layer, runtime)
    return runtime


def unsupported(config: VllmConfig) -> Iterator[str]:
    """Reasons why this engine cannot carry edits."""
    parallel, model, compilation = config.parallel_config, config.model_config, config.compilation_config
    refused = {
        "tensor parallelism (set --tensor-parallel-size 1)": parallel.tensor_parallel_size > 1,
        "pipeline parallelism (set --pipeline-parallel-size 1)": parallel.pipeline_parallel_size > 1,
        "data parallelism inside one engine (start one server per replica)": parallel.data_parallel_size > 1,
        "decode context parallelism": parallel.decode_context_parallel_size > 1,
        "dual batch overlap (drop --enable-dbo)": parallel.use_ubatching,
        "LoRA (drop --enable-lora)": config.lora_config is not None,
        "speculative decoding (drop --speculative-config)": config.speculative_config is not None,
        "a KV connector (drop --kv-transfer-config)": config.kv_transfer_config is not None,
        f"a {config.cache_config.cache_dtype} KV cache (set --kv-cache-dtype auto)": (
            config.cache_config.cache_dtype not in ("auto", "bfloat16", "float16", "float32")
        ),
        "multi-head latent attention": model.use_mla,
        "encoder-decoder models": model.is_encoder_decoder,
        "M-RoPE position ids": bool(getattr(model, "uses_mrope", False)),
        'full CUDA graphs on the V1 model runner (set --compilation-config \'{"cudagraph_mode": "PIECEWISE"}\')': (
            not config.use_v2_model_runner
            and compilation.cudagraph_mode is not None
            and compilation.cudagraph_mode.has_full_cudagraphs()
        ),
    }
    yield from (reason for reason, present in refused.items() if present)


def _gist_attentions(config: VllmConfig, adapter: EditAdapter) -> list[Any]:
    """The decoder attention of every gist layer, in the order of the adapter."""
    found = {
        extract_layer_index(name): attention
        for name, attention in get_layers_from_vllm_config(config, Attention).items()
        if attention.attn_type == AttentionType.DECODER
    }
    missing = [layer for layer in adapter.shape.layers if layer not in found]
    if missing:
        raise UnsupportedEngine(f"the model has no decoder attention in gist layers {missing}, only in {sorted(found)}")
    attentions = [found[layer] for layer in adapter.shape.layers]
    for attention in attentions:
        _check(attention, adapter)
        if attention.num_heads != attentions[0].num_heads:
            raise UnsupportedEngine(f"{attention.layer_name} has another number of heads than the first gist layer")
    return attentions


def _check(attention: Any, adapter: EditAdapter) -> None:
    heads = (attention.num_kv_heads, attention.head_size, attention.head_size_v)
    expected = (adapter.shape.num_kv_heads, adapter.shape.head_dim, adapter.shape.head_dim)
    if heads != expected:
        raise UnsupportedEngine(f"{attention.layer_name} has (K, D, D_v) = {heads}, the adapter expects {expected}")
    refused = {
        "a sliding window": attention.sliding_window is not None,
        "KV shared between layers": attention.kv_sharing_target_layer_name is not None,
        "quantised queries": attention.query_quant is not None,
        "an attention backend that writes its KV cache inside forward": (
            attention.attn_backend.forward_includes_kv_cache_update
        ),
    }
    for reason, present in refused.items():
        if present:
            raise UnsupportedEngine(f"edits are not supported with {reason} ({attention.layer_name})")


def _gist_layer(index: int, attention: Any, model: Any, adapter: EditAdapter, heads: HeadShape) -> GistLayer:
    parent = model.get_submodule(attention.layer_name.rpartition(".")[0])
    rotary = getattr(parent, "rotary_emb", None)
    if not isinstance(getattr(rotary, "cos_sin_cache", None), torch.Tensor):
        raise UnsupportedEngine(f"{attention.layer_name} has no rotary embedding with a cosine-sine cache")

    def of_layer(maps: torch.Tensor | None) -> torch.Tensor | None:
        return None if maps is None else maps[index].to(heads.device, torch.float32).contiguous()

    query_map = of_layer(adapter.query_map)
    if query_map is not None and query_map.shape[0] != heads.num_heads:
        raise UnsupportedEngine(f"query_map has {query_map.shape[0]} heads, {attention.layer_name} {heads.num_heads}")
    router = None if adapter.router is None else adapter.router.to(heads.device)
    return GistLayer(
        index, rotary, query_map, of_layer(adapter.key_map), of_layer(adapter.value_map),
        adapter.zero_keys[index].to(heads.device, torch.float32), router, adapter.scale(0),
    )  # fmt: skip


def _swap_impl(attention: Any, layer: GistLayer, runtime: SelectionRuntime) -> None:
    """Replace the class, not the object: builders test `isinstance(layer.impl, …)`."""
    base = type(attention.impl)

    def forward(
        self: Any, layer: Any, query: Any, key: Any, value: Any, kv_cache: Any, attn_metadata: Any, **kwargs: Any
    ) -> Any:
        result = base.forward(self, layer, query, key, value, kv_cache, attn_metadata, **kwargs)
        runtime_plan = self.incomes_runtime.plan
        if runtime_plan is not None:
            self.incomes_layer.apply(runtime_plan, query, key, value, kwargs["output"])
        return result

    members = {
        "forward": forward,
        "fused_output_quant_supported": lambda self, quant_key: False,  # we add to an unquantised output
    }
    attention.impl.incomes_runtime = runtime
    attention.impl.incomes_layer = layer
    attention.impl.__class__ = type(f"Edit{base.__name__}", (base,), members)


def _device_of(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device
