"""The decoder run layer by layer is the Hugging Face model."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from incomes_plugin.errors import UnsupportedEngine
from incomes_plugin.model.decoder import Decoder, Heads, Past, rotate

SIZES = dict(
    vocab_size=80, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.2,
)  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10000.0}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "llama, wide heads, tied": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, head_dim=16, tie_word_embeddings=True)),
    "llama, yarn": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=YARN)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=None)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=16)),
}


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(0)
    made = MODELS[request.param]().eval().requires_grad_(False)
    for name, tensor in made.named_parameters():
        if "norm" in name or name.endswith("bias"):  # where a fresh model is all ones or zeros
            tensor.add_(torch.randn_like(tensor) * 0.3)
    return made


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_all_layers_equal_the_forward_pass(model: PreTrainedModel) -> None:
    decoder, ids = Decoder(model), torch.randint(0, 80, (2, 17))
    close(decoder.logits(decoder.run(decoder.embed(ids), 0, decoder.num_layers)), model(ids).logits)


def test_layers_may_be_run_in_parts(model: PreTrainedModel) -> None:
    decoder, ids = Decoder(model), torch.randint(0, 80, (1, 9))
    middle = decoder.run(decoder.embed(ids), 0, 2)
    close(middle, model(ids, output_hidden_states=True).hidden_states[2])
    close(decoder.logits(decoder.run(middle, 2, 3)), model(ids).logits)


def test_padding_behind_changes_no_real_row(model: PreTrainedModel) -> None:
    decoder, ids = Decoder(model), torch.randint(0, 80, (2, 12))
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1, 7:] = False
    found = decoder.logits(decoder.run(decoder.embed(ids), 0, 3, mask=mask))
    close(found[mask], model(ids, attention_mask=mask.long()).logits[mask])
    close(found[1, :7], model(ids[1:, :7]).logits[0])


def pasts(decoder: Decoder, ids: torch.Tensor, first: int, last: int) -> list[Heads]:
    found: dict[int, Heads] = {}
    decoder.run(decoder.embed(ids), 0, last, on_layer=found.__setitem__)
    return [found[layer] for layer in range(first, last)]


def test_earlier_positions_may_come_as_their_keys_and_values(model: PreTrainedModel) -> None:
    decoder, ids = Decoder(model), torch.randint(0, 80, (2, 14))
    heads = pasts(decoder, ids[:, :6], 0, 3)
    past = Past([h.key for h in heads], [h.value for h in heads], torch.arange(6)[None])
    positions = torch.arange(6, 14).expand(2, -1)
    found = decoder.run(decoder.embed(ids[:, 6:]), 0, 3, positions=positions, past=past)
    close(decoder.logits(found), model(ids).logits[:, 6:])


def test_one_past_serves_many_rows_and_padded_pasts_are_masked(model: PreTrainedModel) -> None:
    decoder, prefix, ids = Decoder(model), torch.randint(0, 80, (1, 5)), torch.randint(0, 80, (3, 8))
    heads = pasts(decoder, prefix, 0, 3)
    past = Past([h.key for h in heads], [h.value for h in heads], torch.arange(5)[None])
    positions = torch.arange(5, 13).expand(3, -1)
    mask = torch.ones(3, 8, dtype=torch.bool)
    mask[2, 4:] = False
    found = decoder.logits(decoder.run(decoder.embed(ids), 0, 3, positions=positions, past=past, mask=mask))
    whole = model(torch.cat([prefix.expand(3, -1), ids], 1)).logits[:, 5:]
    close(found[mask], whole[mask])

    padded = Past(
        [torch.cat([h.key, torch.randn_like(h.key)], 1) for h in heads],
        [torch.cat([h.value, torch.randn_like(h.value)], 1) for h in heads],
        torch.arange(10)[None],
        torch.tensor([[True] * 5 + [False] * 5]),
    )
    close(decoder.logits(decoder.run(decoder.embed(ids), 0, 3, positions=positions, past=padded, mask=mask)), found)


def test_a_past_may_begin_at_a_later_layer(model: PreTrainedModel) -> None:
    decoder, ids = Decoder(model), torch.randint(0, 80, (1, 10))
    heads = pasts(decoder, ids[:, :4], 1, 3)
    past = Past([h.key for h in heads], [h.value for h in heads], torch.arange(4)[None])
    middle = decoder.run(decoder.embed(ids), 0, 1)[:, 4:]
    found = decoder.run(middle, 1, 3, positions=torch.arange(4, 10)[None], past=past)
    close(decoder.logits(found), model(ids).logits[:, 4:])


def test_heads_are_those_before_the_rotary_embedding(model: PreTrainedModel) -> None:
    """The model's own cache holds them after it."""
    decoder, ids = Decoder(model), torch.randint(0, 80, (1, 8))
    found: dict[int, Heads] = {}
    decoder.run(decoder.embed(ids), 0, 3, on_layer=found.__setitem__)
    cache = model(ids, use_cache=True).past_key_values
    cosine, sine = decoder.rotary(torch.arange(8)[None], found[0].key)
    for layer in range(3):
        close(rotate(found[layer].key, cosine, sine).transpose(1, 2), cache.layers[layer].keys)
        close(found[layer].value.transpose(1, 2), cache.layers[layer].values)


def test_a_hook_replaces_what_attention_gives() -> None:
    torch.manual_seed(0)
    decoder, ids = Decoder(MODELS["llama"]().eval()), torch.randint(0, 80, (1, 6))
    seen: list[int] = []

    def silence(layer: int, query: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        assert query.shape == output.shape == (1, 6, 4, 8)
        seen.append(layer)
        return torch.zeros_like(output) if layer == 1 else output

    embedded = decoder.embed(ids)
    found = decoder.run(embedded, 0, 2, read=silence)
    first = decoder.run(embedded, 0, 1)
    close(found, first + decoder.layers[1].mlp(decoder.layers[1].post_attention_layernorm(first)))
    assert seen == [0, 1]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=80)), "gpt2"),
        (lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=16)), "sliding-window"),
        (lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=16)), "sliding-window"),
    ],
)
def test_other_shapes_of_decoder_are_refused(make, named: str) -> None:
    with pytest.raises(UnsupportedEngine, match=f"{named}.*take a"):
        Decoder(make())
