"""A run of the paper's recipe: the loss falls, and the folder is what the reference and the evaluation expect."""

import json

import pytest
import torch
from transformers import AutoTokenizer

from incomes_plugin.errors import UnsupportedEngine
from incomes_plugin.evaluation.rivals.paper import PaperModel
from incomes_plugin.model.hf import EditableModel, ReferencePool
from incomes_plugin.selection.scale import FixedTemperature
from incomes_plugin.training.paper.recipe import PaperRecipe
from incomes_plugin.training.paper.run import PaperRun
from incomes_plugin.training.run import RunOptions
from tests.tiny_model import TinyModel, write_tiny_model

RECIPE = PaperRecipe(
    samples=4, pool_sizes=(4,), pool_shares=(1.0,), steps=12, learning_rate=3e-3, max_tokens=400,
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, and the loss on one chunk before and after it."""
    folder = tmp_path_factory.mktemp("paper")
    base = write_tiny_model(folder / "base", TinyModel(max_gists=1, with_maps=False))
    before = {path: path.read_bytes() for path in base.iterdir()}
    options = RunOptions(folder / "run", None, device="cpu", base=base)
    run = PaperRun(RECIPE, options)
    chunk = run._source.chunk(4)
    totals = [float(run.trainer(chunk).total.detach())]
    while run.done < 1:
        run._timed_step()
    totals.append(float(run.trainer(chunk).total.detach()))
    run.save()
    assert before == {path: path.read_bytes() for path in base.iterdir()}
    return run, options, totals


def test_the_loss_falls(finished):
    _, _, totals = finished
    assert totals[1] < 0.95 * totals[0]


def test_the_folder_is_the_papers(finished):
    _, options, _ = finished
    config = json.loads((options.out / "model" / "edit_adapter.json").read_text())
    assert (config["selection"], config["rotary_query"]) == ("paper", True)
    editable, rival = EditableModel.load(options.out / "model"), PaperModel(options.out / "model")
    assert editable.adapter.scale == FixedTemperature(0.45, 10)
    assert editable.adapter.shape.layers == (2, 3)
    tokenizer = AutoTokenizer.from_pretrained(options.out / "model")
    texts = [tokenizer(f"The price of pump {i} is {i * 7} euros.")["input_ids"] for i in range(12)]
    prompt = tokenizer("What is the price of pump 3?")["input_ids"]
    plain = editable.logits(prompt)
    for count in (3, 12):  # below and above the size from which the temperature applies
        rival.fill(texts[:count])
        rival._taps.reader = rival._read
        with torch.inference_mode():
            theirs = rival.model(input_ids=torch.tensor([prompt])).logits[0]
        ours = editable.logits(prompt, ReferencePool.of([editable.capture(text) for text in texts[:count]]))
        assert torch.allclose(ours, theirs, atol=1e-4)
        assert (ours - plain).abs().max() > 1e-2


def test_goes_on_from_its_state(finished):
    run, options, _ = finished
    again = PaperRun(RECIPE, options)
    assert again.step == 12
    assert torch.equal(again.trainer.zero_keys, run.trainer.zero_keys)


@pytest.mark.vllm
def test_the_engine_refuses_it(finished):
    from incomes_plugin.vllm.config import refuse_rotary_query
    from incomes_plugin.vllm.launcher import launch

    _, options, _ = finished
    model = options.out / "model"
    with pytest.raises(UnsupportedEngine, match="rotated queries"):
        refuse_rotary_query(EditableModel.load(model).adapter)

    async def start():
        async with launch(["--model", str(model)]):
            raise AssertionError("it started")

    import asyncio

    with pytest.raises(UnsupportedEngine, match="--method paper"):
        asyncio.run(start())
