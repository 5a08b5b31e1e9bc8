"""A Qwen2-shaped bfloat16 checkpoint with random weights, a word-level tokenizer and an edit adapter.

Its figures say what serving costs, not what it knows. Sizes are those of a 0.5 B model without its big vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from benchmarks.gate import LOUD, first_queries, gated_router
from incomes_plugin.gist import Gist, GistShape
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.selection.routing import Router
from incomes_plugin.selection.scale import LogScale

VOCAB = 4096
CHAT = "{% for m in messages %}{{ m['content'] }} {% endfor %}"


@dataclass(frozen=True)
class Size:
    """Shape of the checkpoint."""

    layers: int = 24
    hidden: int = 896
    heads: int = 14
    kv_heads: int = 2
    head_dim: int = 64
    intermediate: int = 4864


QUICK = Size(layers=4, hidden=128, heads=2, kv_heads=1, head_dim=64, intermediate=256)


def write_model(folder: Path, size: Size, max_gists: int, *, routed: bool = True) -> EditAdapter:
    """Write checkpoint, tokenizer and adapter.

    Args:
        folder: made if absent.
        size: shape of the decoder.
        max_gists: largest G; the last ids of the vocabulary become the gist tokens.
        routed: give the adapter a router.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCAB,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        dtype=torch.bfloat16,
    )
    model = Qwen2ForCausalLM(config).bfloat16()
    model.save_pretrained(folder)
    write_tokenizer(folder, max_gists)
    router = None
    if routed:
        queries = first_queries(model, size.layers // 2, size.head_dim, [prompt(-i, 64) for i in range(8)])
        router = gated_router(queries, size.kv_heads * size.head_dim)
    adapter = random_adapter(size, max_gists, router)
    adapter.save(folder)
    return adapter


def write_tokenizer(folder: Path, max_gists: int) -> None:
    """One token a word: `w3 … w4095`, so that token counts are exact."""
    names = ["<unk>", "<s>", "</s>", *(f"w{i}" for i in range(3, VOCAB - max_gists))]
    names += [f"<GIST_{i}>" for i in range(max_gists)]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", chat_template=CHAT
    )
    fast.save_pretrained(folder)


def random_adapter(size: Size, max_gists: int, router: Router | None) -> EditAdapter:
    """An adapter with every part the default model's has: zero-gist keys, query and value maps."""
    layers = tuple(range(size.layers // 2, size.layers))
    shape = GistShape(layers, max_gists, size.kv_heads, size.head_dim)
    eye = torch.eye(size.head_dim)
    return EditAdapter(
        shape=shape,
        gist_token_ids=tuple(range(VOCAB - max_gists, VOCAB)),
        bos_token_id=1,
        max_edit_tokens=128,
        scale=LogScale(),
        zero_keys=torch.randn(len(layers), size.kv_heads, size.head_dim),
        query_map=eye.expand(len(layers), size.heads, -1, -1).clone(),
        value_map=eye.expand(len(layers), size.kv_heads, -1, -1).clone(),
        router=router,
    )


def random_gists(shape: GistShape, count: int, gists: int, prefix: str, *, loud: bool = False) -> list[Gist]:
    """`count` edits of `gists` gist tokens each (with a router: its token included), of the size of real ones.

    Args:
        loud: with a router every token reads them, else a share of the tokens.
    """
    size = (len(shape.layers), gists, shape.num_kv_heads, shape.head_dim)
    generator = torch.Generator().manual_seed(count)

    def tensor() -> torch.Tensor:
        return torch.randn(size, generator=generator).to(torch.bfloat16)

    made = [Gist(f"edit_{prefix}{i:06d}", 1, tensor(), tensor()) for i in range(count)]
    for gist in made if loud else ():
        gist.keys[0] *= LOUD
    return made


def prompt(seed: int, tokens: int) -> list[int]:
    """`tokens` random ordinary token ids, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCAB // 2, (tokens,), generator=generator).tolist()
