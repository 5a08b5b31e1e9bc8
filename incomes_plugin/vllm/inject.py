"""Put the selection layer into a loaded model: swap the class of each reading layer's attention impl, wrap the logits.

The impl runs inside `vllm::unified_attention_with_output`, which torch.compile treats as opaque, so nothing that was
traced changes. Feature layers stay as they are, because routing finds their keys in the KV cache. Engine settings that
have not been proven together with edits are refused here; the message names the setting to change.
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
from incomes_plugin.vllm.copies import CopyingLogits
from incomes_plugin.vllm.kv_cache import AttentionLayer
from incomes_plugin.vllm.ranks import Ranks
from incomes_plugin.vllm.recalls import RecallVectors, feed_vectors, runs_eagerly
from incomes_plugin.vllm.runtime import SelectionRuntime

_BACKENDS = ("CPU_ATTN", "FLASH_ATTN", "TRITON_ATTN")
"""Attention backends whose metadata have a `block_table`, one row a request."""


def install(vllm_config: VllmConfig, model: torch.nn.Module, adapter: EditAdapter) -> SelectionRuntime:
    """Wrap the reading layers and the logits of `model` and return the runtime that steers them.

    Raises:
        UnsupportedEngine: a configuration or architecture the selection layer has not been proven on.
    """
    for reason in unsupported(vllm_config):
        raise UnsupportedEngine(f"edits are not supported with {reason}")
    hidden, expected = vllm_config.model_config.get_hidden_size(), adapter.copier.config["hidden_dim"]
    if hidden != expected:
        raise UnsupportedEngine(f"the model's hidden states have {hidden} numbers, the adapter expects {expected}")
    attentions = _attentions(vllm_config, adapter)
    layers = {index: AttentionLayer(a, _rotary(a, model)) for index, a in attentions.items()}
    on_device = adapter.to(next(model.parameters()).device)
    dtype = next(iter(attentions.values())).dtype
    recalls = RecallVectors(model, runs_eagerly(vllm_config))
    logits = CopyingLogits(model, on_device.copier)
    runtime = SelectionRuntime(on_device, layers, dtype, Ranks.of_worker(), recalls, logits)
    feed_vectors(model, lambda: () if runtime.plan is None else runtime.plan.recalls)
    for place, index in enumerate(adapter.shape.layers):
        _swap_impl(attentions[index], place, runtime)
    return runtime


def refuse_uneven_ranks(adapter: EditAdapter, ranks: int) -> None:
    """Raise UnsupportedEngine unless so many tensor-parallel ranks have as many heads of each kind as one another."""
    heads, kv_heads = adapter.num_heads, adapter.shape.num_kv_heads
    if heads % ranks or kv_heads % ranks:
        raise UnsupportedEngine(
            f"edits are not supported with {ranks} tensor-parallel ranks for {heads} heads and {kv_heads} kv heads: "
            "each rank needs the same number of both (set --tensor-parallel-size to a divisor)"
        )


def unsupported(config: VllmConfig) -> Iterator[str]:
    """Reasons why this engine cannot carry edits."""
    parallel, model, compilation = config.parallel_config, config.model_config, config.compilation_config
    refused = {
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
        "KV cache events (drop --kv-events-config)": (
            config.kv_events_config is not None and config.kv_events_config.enable_kv_cache_events
        ),
        "prompts given as embeddings (drop --enable-prompt-embeds)": model.enable_prompt_embeds,
        "multimodal models": model.is_multimodal_model,
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


def _attentions(config: VllmConfig, adapter: EditAdapter) -> dict[int, Any]:
    """The decoder attention of every feature layer and reading layer, by number of the layer."""
    found = {
        extract_layer_index(name): attention
        for name, attention in get_layers_from_vllm_config(config, Attention).items()
        if attention.attn_type == AttentionType.DECODER
    }
    shape = adapter.shape
    wanted = sorted({*shape.feature_layers, *shape.layers})
    missing = [layer for layer in wanted if layer not in found]
    if missing:
        raise UnsupportedEngine(f"the model has no decoder attention in layers {missing}, only in {sorted(found)}")
    if max(shape.feature_layers) > min(shape.layers):
        raise UnsupportedEngine("a feature layer lies above the first reading layer: its keys come too late to route")
    attentions = {layer: found[layer] for layer in wanted}
    for attention in attentions.values():
        _check(attention, adapter)
    return attentions


def _check(attention: Any, adapter: EditAdapter) -> None:
    shape = adapter.shape
    ranks = Ranks.of_worker().size
    heads = (ranks * attention.num_heads, ranks * attention.num_kv_heads, attention.head_size, attention.head_size_v)
    expected = (adapter.num_heads, shape.num_kv_heads, shape.head_dim, shape.head_dim)
    if heads != expected:
        raise UnsupportedEngine(
            f"{attention.layer_name} has (H, K, D, D of values) = {heads}, the adapter expects {expected}"
        )
    backend = attention.attn_backend
    refused = {
        "a sliding window": attention.sliding_window is not None,
        "KV shared between layers": attention.kv_sharing_target_layer_name is not None,
        "quantised queries": attention.query_quant is not None,
        "an attention backend that writes its KV cache inside forward": backend.forward_includes_kv_cache_update,
        f"the attention backend {backend.get_name()}, only with {', '.join(_BACKENDS)}": (
            backend.get_name() not in _BACKENDS
        ),
    }
    for reason, present in refused.items():
        if present:
            raise UnsupportedEngine(f"edits are not supported with {reason} ({attention.layer_name})")


def _rotary(attention: Any, model: torch.nn.Module) -> Any:
    """The rotary module in front of an attention."""
    rotary = getattr(model.get_submodule(attention.layer_name.rpartition(".")[0]), "rotary_emb", None)
    if not isinstance(getattr(rotary, "cos_sin_cache", None), torch.Tensor):
        raise UnsupportedEngine(f"{attention.layer_name} has no rotary embedding with a cosine-sine cache")
    return rotary


def _swap_impl(attention: Any, place: int, runtime: SelectionRuntime) -> None:
    """Replace the class, not the object: builders test `isinstance(layer.impl, …)`."""
    base = type(attention.impl)

    def forward(
        self: Any, layer: Any, query: Any, key: Any, value: Any, kv_cache: Any, attn_metadata: Any, **kwargs: Any
    ) -> Any:
        result = base.forward(self, layer, query, key, value, kv_cache, attn_metadata, **kwargs)
        plan = self.incomes_runtime.plan
        if plan is not None:
            if place == 0:
                self.incomes_runtime.enter(plan, attn_metadata.block_table)
            if plan.rows is not None:
                self.incomes_runtime.reading_layers[place].read(plan.rows, query, kwargs["output"])
        return result

    members = {
        "forward": forward,
        "fused_output_quant_supported": lambda self, quant_key: False,  # we change an unquantised output
    }
    attention.impl.incomes_runtime = runtime
    attention.impl.__class__ = type(f"Edit{base.__name__}", (base,), members)
