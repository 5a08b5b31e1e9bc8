"""A random Llama with tokenizer and edit adapter: small enough for tests, real enough for vLLM and transformers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from incomes_plugin.gist.types import GistShape
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.selection.routing import Router
from incomes_plugin.selection.scale import LogScale

_SPECIAL = ["<pad>", "<bos>", "<eos>"]
_CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


@dataclass(frozen=True)
class TinyModel:
    """Shape of the checkpoint; the defaults make a file of about 1 MB. `LARGE` has about 0.3 B parameters."""

    hidden_size: int = 64
    intermediate_size: int = 128
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 32
    max_positions: int = 1024
    max_gists: int = 4
    extra_vocabulary: int = 0
    with_maps: bool = True
    routed: bool = False


LARGE = TinyModel(
    hidden_size=896,
    intermediate_size=4864,
    num_layers=24,
    num_heads=14,
    num_kv_heads=2,
    head_dim=64,
    max_positions=4096,
    max_gists=1,
    with_maps=True,
)


def write_tiny_model(folder: Path, shape: TinyModel | None = None, *, seed: int = 0) -> Path:
    """Write checkpoint, byte-level tokenizer and adapter into `folder`; returns it.

    Raises:
        ValueError: the number of layers is odd (the gist layers are the upper half).
    """
    shape = shape or TinyModel()
    if shape.num_layers % 2:
        raise ValueError("num_layers must be even")
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    gist_tokens = [f"<gist{i}>" for i in range(shape.max_gists)]
    vocabulary = _write_tokenizer(folder, gist_tokens) + shape.extra_vocabulary
    _write_model(folder, shape, vocabulary, seed)
    _write_adapter(folder, shape, generator)
    return folder


def _write_tokenizer(folder: Path, gist_tokens: list[str]) -> int:
    tokens = [*_SPECIAL, *gist_tokens, *sorted(ByteLevel.alphabet())]
    tokenizer = Tokenizer(BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens([*_SPECIAL, *gist_tokens])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", chat_template=_CHAT
    )
    fast.save_pretrained(folder)
    return len(tokens)


def _write_model(folder: Path, shape: TinyModel, vocabulary: int, seed: int) -> None:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.max_positions,
        initializer_range=0.08 if shape.hidden_size <= 256 else 0.02,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    if shape.hidden_size > 256:
        model = model.to(torch.bfloat16)
    model.save_pretrained(folder)
    # Greedy decoding in tests must not stop early.
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}))


def _write_adapter(folder: Path, shape: TinyModel, generator: torch.Generator) -> None:
    layers = tuple(range(shape.num_layers // 2, shape.num_layers))

    def maps(heads: int) -> torch.Tensor | None:
        if not shape.with_maps:
            return None
        noise = torch.randn(len(layers), heads, shape.head_dim, shape.head_dim, generator=generator)
        return torch.eye(shape.head_dim) + noise * 0.3 / shape.head_dim**0.5

    def router() -> Router | None:
        if not shape.routed:
            return None
        queries, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
        return Router(
            torch.randn(queries, keys, generator=generator) / queries**0.5,
            torch.randn(keys, generator=generator),
            torch.tensor(-0.5),
            torch.tensor(2.0),
            growth=0.3,
            recency=0.7,
        )

    EditAdapter(
        shape=GistShape(layers, shape.max_gists, shape.num_kv_heads, shape.head_dim),
        gist_token_ids=tuple(range(len(_SPECIAL), len(_SPECIAL) + shape.max_gists)),
        bos_token_id=1,
        max_edit_tokens=256,
        scale=LogScale(1.0, 0.25),
        zero_keys=torch.randn(len(layers), shape.num_kv_heads, shape.head_dim, generator=generator) * 0.1,
        query_map=maps(shape.num_heads),
        key_map=maps(shape.num_kv_heads),
        value_map=maps(shape.num_kv_heads),
        router=router(),
    ).save(folder)
