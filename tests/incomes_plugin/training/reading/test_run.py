"""Layers that learn to read the prompt: what is below them, and with it every gist, stays as it is."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from incomes_plugin.errors import GistFormatError, InvalidValue
from incomes_plugin.model import DEFAULT_MODEL_DIR
from incomes_plugin.model.hf import EditableModel, ReferencePool
from incomes_plugin.training.reading.losses import ReadingTrainer
from incomes_plugin.training.reading.recipe import ReadingRecipe
from incomes_plugin.training.reading.run import ReadingRun
from incomes_plugin.training.run import RunOptions

RECIPE = ReadingRecipe(steps=4, warmup_steps=1, num_layers=2, edits_every=2, edits_per_batch=6, crowd=10)
EDIT = "The warranty of pump Z9 is 36 months."


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A short run on the default model."""
    options = RunOptions(tmp_path_factory.mktemp("run"), None, device="cpu", base=DEFAULT_MODEL_DIR, edits=3, ask=2)
    run = ReadingRun(RECIPE, options)
    return run, options, run.train()


def _ids(text: str) -> list[int]:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(DEFAULT_MODEL_DIR)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_gists_and_all_that_is_below_the_new_layers_stay(finished):
    run, _, score = finished
    assert (run.step, score.edits) == (4, 3)
    before, after = (load_file(folder / "model.safetensors") for folder in (DEFAULT_MODEL_DIR, run.model_dir))
    assert {name for name in before if not torch.equal(before[name], after[name])} <= {"model.norm.weight"}
    grown = EditableModel.load(run.model_dir)
    small = EditableModel.load(DEFAULT_MODEL_DIR)
    assert grown.model.config.num_hidden_layers == small.model.config.num_hidden_layers + 2
    assert torch.equal(grown.capture(_ids(EDIT)).keys, small.capture(_ids(EDIT)).keys)
    assert torch.equal(grown.capture(_ids(EDIT)).values, small.capture(_ids(EDIT)).values)


def test_new_layers_are_trained(finished):
    run, _, _ = finished
    after = load_file(run.model_dir / "model.safetensors")
    below = EditableModel.load(DEFAULT_MODEL_DIR).model.config.num_hidden_layers
    assert all(after[f"model.layers.{below + i}.mlp.down_proj.weight"].abs().max() > 0 for i in (0, 1))


def test_goes_on_from_its_state(finished):
    run, options, _ = finished
    again = ReadingRun(replace(RECIPE, steps=5), options)
    assert (again.step, again.elapsed_s) == (4, run.elapsed_s)
    assert all(torch.equal(t, again.trainer.state_dict()[n]) for n, t in run.trainer.state_dict().items())


def test_new_layers_change_nothing_at_first():
    base = EditableModel.load(DEFAULT_MODEL_DIR)
    pool = ReferencePool.of(base.capture_all([_ids(EDIT)]))
    question = _ids("What is the warranty of pump Z9?")
    expected = base.logits(question, pool)
    trainer = ReadingTrainer(EditableModel.load(DEFAULT_MODEL_DIR), 2, crowd=4)
    below = trainer._base[0]
    with torch.inference_mode(), below.reading(pool):
        hidden = below.model.model(input_ids=torch.tensor([question])).last_hidden_state
        logits = below.model.lm_head(trainer.top(inputs_embeds=hidden).last_hidden_state)[0]
    torch.testing.assert_close(logits, expected)


def test_the_crowd_keeps_the_newest_edits(finished):
    run, _, _ = finished
    pool = run.trainer._pool(run._source.next(whole=True))
    assert len(pool.entries) == RECIPE.crowd


def test_wants_an_edit_capable_base(tmp_path):
    with pytest.raises(InvalidValue, match="--base"):
        ReadingRun(RECIPE, RunOptions(tmp_path, None))
    (tmp_path / "plain").mkdir()
    with pytest.raises(GistFormatError, match="not edit-capable"):
        ReadingRun(RECIPE, RunOptions(tmp_path / "run", None, base=tmp_path / "plain"))


def test_new_layers_start_from_those_of_a_model_that_reads(finished, tmp_path):
    run, options, _ = finished
    reader = EditableModel.load(run.model_dir).model.model
    trainer = ReadingRun(RECIPE, replace(options, out=tmp_path, grow_from=run.model_dir)).trainer
    for layer, trained in zip(trainer.top.layers, reader.layers[-2:], strict=True):
        assert all(torch.equal(t, layer.state_dict()[n]) for n, t in trained.state_dict().items())
    assert torch.equal(trainer.top.norm.weight, reader.norm.weight)
    too_many = replace(RECIPE, num_layers=30)
    with pytest.raises(InvalidValue, match="fewer than 30 layers"):
        ReadingRun(too_many, replace(options, out=tmp_path, grow_from=run.model_dir))
