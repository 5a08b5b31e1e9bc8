"""A random Llama with tokenizer and edit adapter: small enough for tests, real enough for vLLM and transformers.

`write_tiny_model(folder)` writes the base into `folder` and the adapter into `folder / "adapter"`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from incomes_plugin.gist.fingerprint import base_fingerprint
from incomes_plugin.gist.types import GistShape
from incomes_plugin.model.adapter import BaseModel, EditAdapter
from incomes_plugin.model.template import template_of
from incomes_plugin.selection.codec import Codec
from incomes_plugin.selection.conflicts import Judge
from incomes_plugin.selection.copying import Copier
from incomes_plugin.selection.reading import Reader
from incomes_plugin.selection.routing import Router
from incomes_plugin.selection.rules import RoutingRules
from incomes_plugin.selection.verifier import Verifier

SPECIAL = ("<pad>", "<bos>", "<eos>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class TinyModel:
    """Shape of base and adapter; the defaults make files of about 1 MB. `LARGE` has about 0.3 B parameters.

    Attributes:
        extra_vocabulary: rows of the embedding that no token has.
        threshold: see `RoutingRules`. By default every question picks something; 100 lets no question pick anything.
        most_picks: likewise.
    """

    hidden_size: int = 64
    intermediate_size: int = 128
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 32
    max_positions: int = 1024
    max_edit_tokens: int = 256
    extra_vocabulary: int = 0
    threshold: float = -100.0
    most_picks: int = 4

    @property
    def gist_shape(self) -> GistShape:
        """The upper half reads; routing compares keys of the layer below it and of its first."""
        middle = self.num_layers // 2
        reading = tuple(range(middle, self.num_layers))
        latent_dim = len(reading) * self.num_kv_heads * self.head_dim  # half of what there is to keep
        return GistShape((middle - 1, middle), reading, self.num_kv_heads, self.head_dim, latent_dim)


LARGE = TinyModel(
    hidden_size=896,
    intermediate_size=4864,
    num_layers=24,
    num_heads=14,
    num_kv_heads=2,
    head_dim=64,
    max_positions=4096,
)


def write_tiny_model(folder: Path, shape: TinyModel | None = None, *, seed: int = 0) -> Path:
    """Write base, byte-level tokenizer and adapter; returns `folder`, the base's.

    Raises:
        ValueError: the number of layers is odd (the reading layers are the upper half).
    """
    shape = shape or TinyModel()
    if shape.num_layers % 2:
        raise ValueError("num_layers must be even")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer(folder)
    _write_base(folder, shape, len(tokenizer) + shape.extra_vocabulary, seed)
    base = BaseModel(str(folder), base_fingerprint(folder))
    random_adapter(shape, base, tokenizer, seed=seed).save(folder / "adapter")
    return folder


def write_tokenizer(folder: Path, chat_template: str = CHATML) -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each byte."""
    tokens = [*SPECIAL, *sorted(ByteLevel.alphabet())]
    tokenizer = Tokenizer(BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens(list(SPECIAL))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", chat_template=chat_template
    )
    fast.save_pretrained(folder)
    return fast


def random_adapter(
    shape: TinyModel, base: BaseModel, tokenizer: PreTrainedTokenizerBase, *, seed: int = 0
) -> EditAdapter:
    """An adapter of random maps: which edits are picked, what is read of them and what is copied changes outputs
    much."""
    gists = shape.gist_shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        router = Router(gists.feature_dim, route_dim=32, hidden_dim=16)
        verifier = Verifier(gists.feature_dim, len(gists.feature_layers), width=32, heads=2, layers=1)
        codec = Codec(gists)
        codec.directions.copy_(torch.linalg.qr(torch.randn_like(codec.directions)).Q)
        reader = Reader(gists, shape.num_heads)
        _shake(verifier, 2.0)
        _shake(reader, 0.3)
        nn.init.constant_(reader.zero_bias, 1.0)
        mean, scale = torch.randn(gists.feature_dim) * 0.1, torch.rand(gists.feature_dim) * 0.4 + 0.4
        copier = Copier(shape.hidden_size, gists.latent_dim, copy_dim=16)
        _shake(copier, 1.0)
        nn.init.constant_(copier.sentinel_bias, 4.5)
        judge = Judge()
    for module in (router, verifier, judge, codec, reader, copier):
        module.eval().requires_grad_(False)
    return EditAdapter(
        base=base,
        shape=gists,
        num_heads=shape.num_heads,
        template=template_of(tokenizer),
        max_edit_tokens=shape.max_edit_tokens,
        mean=mean,
        scale=scale,
        router=router,
        verifier=verifier,
        judge=judge,
        codec=codec,
        reader=reader,
        copier=copier,
        rules=RoutingRules(most_picks=shape.most_picks, threshold=shape.threshold),
    )


def _write_base(folder: Path, shape: TinyModel, vocabulary: int, seed: int) -> None:
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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    if shape.hidden_size > 256:
        model.bfloat16()
    model.save_pretrained(folder)
    # Greedy decoding in tests must not stop early.
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}))


@torch.no_grad()
def _shake(module: nn.Module, size: float) -> None:
    """Add noise to every tensor: `size` times its number of inputs to the power -1/2."""
    for tensor in module.parameters():
        inputs = tensor.shape[-1] if tensor.dim() else 1
        tensor.add_(torch.randn_like(tensor) * size / inputs**0.5)
