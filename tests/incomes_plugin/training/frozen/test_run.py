"""An edit adapter on a frozen base of each family: it learns, the base does not change, the folder can be read."""

import hashlib

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from incomes_plugin.errors import InvalidValue
from incomes_plugin.model.hf import EditableModel, ReferencePool
from incomes_plugin.training.frozen.recipe import FrozenRecipe
from incomes_plugin.training.frozen.run import FrozenRun
from incomes_plugin.training.run import RunOptions
from tests.incomes_plugin.training.frozen.families import FAMILIES, SPARE_ROWS, write_base
from tests.tiny_model import write_tiny_model

RECIPE = FrozenRecipe(
    steps=8, max_gists=80, edits_per_batch=4, max_row_tokens=150, learning_rate=1e-2, warmup_steps=1
)  # fmt: skip


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture(scope="module", params=FAMILIES)
def finished(request, tmp_path_factory):
    """Family, base folder, run, and the loss on one batch before and after."""
    folder = tmp_path_factory.mktemp(request.param)
    base = write_base(folder / "base", request.param)
    before = digests(base)
    run = FrozenRun(RECIPE, RunOptions(folder / "run", None, device="cpu", base=base))
    batch = run._source.next()
    run._source.next = lambda **_: batch  # the same again: eight steps are enough to see it learned
    torch.manual_seed(0)
    totals = [float(run.trainer(batch).total.detach())]
    frozen = {name: p.clone() for name, p in run.trainer._base[0].named_parameters()}
    while run.done < 1:
        run._timed_step()
    torch.manual_seed(0)
    totals.append(float(run.trainer(batch).total.detach()))
    del run._source.next
    run.save()
    assert all(torch.equal(p, frozen[name]) for name, p in run.trainer._base[0].named_parameters())
    assert digests(base) == before
    return request.param, base, run, totals


def test_the_loss_falls_and_all_of_the_adapter_moves(finished):
    _, _, run, totals = finished
    assert totals[1] < 0.95 * totals[0]
    fresh = torch.eye(run.trainer.adapter.shape.head_dim)
    for maps in (run.trainer.key_map, run.trainer.selection.query_map, run.trainer.selection.value_map):
        assert all((one - fresh).abs().max() > 1e-3 for one in maps.detach().flatten(0, 1))
    assert not any(name.startswith("model") for name in run.trained_state())


def test_the_copy_keeps_every_tensor_of_the_base(finished):
    family, base, run, _ = finished
    old, new = load_file(base / "model.safetensors"), load_file(run.model_dir / "model.safetensors")
    for name in set(old) - {"model.embed_tokens.weight", "lm_head.weight"}:
        assert torch.equal(old[name], new[name])
    rows = len(old["model.embed_tokens.weight"])
    head = old.get("lm_head.weight", old["model.embed_tokens.weight"])
    assert torch.equal(new["lm_head.weight"][:rows], head)
    ids = list(run.rows.ids)
    kept = [i for i in range(rows) if i not in ids]
    assert torch.equal(new["model.embed_tokens.weight"][kept], old["model.embed_tokens.weight"][kept])
    assert torch.equal(new["model.embed_tokens.weight"][ids], run.trainer.gist_rows.detach())
    assert (max(ids) >= rows) == (SPARE_ROWS[family] == 0)


def test_without_edits_the_logits_are_the_bases_to_the_last_bit(finished):
    _, base, run, _ = finished
    stock, editable = AutoModelForCausalLM.from_pretrained(base).eval(), EditableModel.load(run.model_dir)
    ids = run.tokenizer("user: What is the price of pump Z9?\nassistant:")["input_ids"]
    with torch.inference_mode():
        expected = stock(input_ids=torch.tensor([ids])).logits[0]
    logits = editable.logits(ids)
    assert torch.equal(logits[:, : expected.shape[1]], expected)
    assert torch.equal(logits.argmax(-1), expected.argmax(-1))


def test_the_folder_captures_and_reads(finished):
    _, _, run, _ = finished
    editable = EditableModel.load(run.model_dir)
    texts = [run.tokenizer(f"The price of pump Z{i} is {i}7 euros.")["input_ids"] for i in range(5)]
    gists = [editable.capture(text) for text in texts]
    assert [g.num_gists for g in gists] == [len(text) for text in texts]
    prompt = run.tokenizer("What is the price of pump Z3?")["input_ids"]
    editable.adapter.router.bias.fill_(-9.0)  # always read something
    assert (editable.logits(prompt, ReferencePool.of(gists)) - editable.logits(prompt)).abs().max() > 1e-4


def test_goes_on_from_its_state(finished):
    _, base, run, _ = finished
    again = FrozenRun(RECIPE, RunOptions(run.options.out, None, device="cpu", base=base))
    assert again.step == 8
    assert torch.equal(again.trainer.gist_rows, run.trainer.gist_rows)


def test_training_and_serving_compute_the_same_gist(finished):
    _, _, run, _ = finished
    editable = EditableModel.load(run.model_dir)
    batch = run._source.next()
    base = run.trainer._base[0]
    with torch.no_grad():
        keys, values, _ = run.trainer._edits(base, batch)
    text = batch.edit_ids[0, : int(batch.gist_mask[0].nonzero()[0])].tolist()
    bos = editable.adapter.bos_token_id
    gist = editable.capture(text if bos is None else text[1:])
    count = int(batch.first_entry[1])
    assert torch.allclose(gist.keys[:, :count], torch.stack([k[:count] for k in keys]), atol=1e-4)
    assert torch.allclose(gist.values[:, :count], torch.stack([v[:count] for v in values]), atol=1e-4)
    assert gist.num_gists == count


def test_too_few_gist_tokens_for_the_tokenizer_is_an_error(tmp_path):
    base = write_base(tmp_path / "base", "llama")
    run = FrozenRun(FrozenRecipe(max_gists=8, edits_per_batch=4), RunOptions(tmp_path / "run", None, base=base))
    with pytest.raises(InvalidValue, match="more gist tokens"):
        run._source._near_misses()


def test_other_families_are_refused(tmp_path):
    base = write_tiny_model(tmp_path / "base")
    config = base / "config.json"
    config.write_text(config.read_text().replace('"model_type": "llama"', '"model_type": "granite"'))
    with pytest.raises(InvalidValue, match="adapters are for llama, qwen2, qwen3, mistral"):
        FrozenRun(RECIPE, RunOptions(tmp_path / "run", None, base=base))
