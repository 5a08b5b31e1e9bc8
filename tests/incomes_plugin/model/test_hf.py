"""The reference model: taps see un-rotated heads, gists do not depend on the pool, selection not on the position."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from incomes_plugin.gist import GistShape
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel, ReferencePool
from incomes_plugin.selection.scale import LogScale

SIZES = dict(
    vocab_size=80, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, head_dim=8, max_position_embeddings=128,
)  # fmt: skip


def adapter() -> EditAdapter:
    shape = GistShape(layers=(2, 3), max_gists=5, num_kv_heads=2, head_dim=8)
    return EditAdapter(
        shape=shape, gist_token_ids=(70, 71, 72, 73, 74), bos_token_id=1, max_edit_tokens=9, scale=LogScale(),
        zero_keys=torch.randn(2, 2, 8), query_map=torch.randn(2, 4, 8, 8), value_map=torch.randn(2, 2, 8, 8),
    )  # fmt: skip


@pytest.fixture(params=["llama", "qwen3"])
def editable(request) -> EditableModel:
    torch.manual_seed(0)
    model = (
        LlamaForCausalLM(LlamaConfig(**SIZES)) if request.param == "llama" else Qwen3ForCausalLM(Qwen3Config(**SIZES))
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)  # larger weights, so that effects are far above rounding
    return EditableModel(model.eval(), adapter())


def test_number_of_gists_follows_the_text_up_to_the_limit(editable):
    assert editable.capture([5, 6, 7]).keys.shape == (2, 3, 2, 8)
    assert editable.capture([5, 6, 7, 8, 9, 10, 11]).values.shape == (2, 5, 2, 8)


def test_pool_changes_logits_and_an_empty_pool_changes_none(editable):
    plain = editable.logits([1, 5, 6, 7])
    pool = ReferencePool.of([editable.capture([9, 10, 11])])
    empty = ReferencePool(torch.empty(2, 0, 2, 8), torch.empty(2, 0, 2, 8))
    assert (editable.logits([1, 5, 6, 7], pool) - plain).abs().max() > 1e-3
    assert torch.equal(editable.logits([1, 5, 6, 7], empty), plain)
    assert torch.equal(editable.logits([1, 5, 6, 7]), plain)


def test_capture_does_not_see_what_another_request_reads(editable):
    before = editable.capture([9, 10, 11])
    editable.logits([1, 5, 6], ReferencePool.of([before]))
    assert torch.equal(editable.capture([9, 10, 11]).keys, before.keys)


def test_queries_are_tapped_before_rotation(editable):
    """The first gist layer's query of equal tokens is equal at every position when no token attends to another."""
    for layer in editable.model.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
    seen = []
    editable._taps.reader = lambda layer, query: seen.append((layer, query.clone())) or None
    editable.model(input_ids=torch.tensor([[7, 7, 7, 7]]))
    for _layer, query in seen:
        assert torch.allclose(query[0, 0], query[0, 3], atol=1e-5)


def test_adapter_survives_its_files(tmp_path):
    made = adapter()
    made.save(tmp_path)
    read = EditAdapter.load(tmp_path)
    assert (read.shape, read.scale, read.gist_token_ids) == (made.shape, made.scale, made.gist_token_ids)
    assert torch.equal(read.query_map, made.query_map)
    assert read.key_map is None
