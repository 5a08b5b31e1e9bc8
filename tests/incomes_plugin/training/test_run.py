"""A run in a folder: it leaves model, curves and their plot, and goes on where it stopped; schedules end."""

import csv
from dataclasses import replace

import pytest
import torch

from incomes_plugin.model.hf import EditableModel
from incomes_plugin.training.loop import Run
from incomes_plugin.training.recipe import Recipe
from incomes_plugin.training.run import RunOptions
from incomes_plugin.training.schedule import Schedule

RECIPE = Recipe(
    vocab_size=700, hidden_size=32, num_layers=3, num_heads=2, num_kv_heads=1, head_dim=16, intermediate_size=64,
    max_positions=256, edits_per_batch=6, steps=10, warmup_steps=2, learning_rate=5e-3,
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run to its end."""
    options = RunOptions(tmp_path_factory.mktemp("run"), None, device="cpu", edits=3, ask=2, crowd=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("incomes_plugin.training.loop._TOKENIZER_FACTS", 400)
        run = Run(RECIPE, options)
        score = run.train()
    return run, options, score


def test_leaves_model_curves_and_plot(finished):
    run, options, score = finished
    assert (run.step, score.edits, score.asked) == (10, 3, 2)
    with (options.out / "curves.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["10"]
    assert (options.out / "curves.png").read_bytes().startswith(b"\x89PNG")
    editable = EditableModel.load(options.out / "model")
    assert editable.adapter.shape.layers == (1, 2)


def test_goes_on_from_its_state(finished):
    run, options, _ = finished
    again = Run(replace(RECIPE, steps=12), options)
    assert (again.step, again.elapsed_s) == (10, run.elapsed_s)
    for name, tensor in run.trainer.state_dict().items():
        assert torch.equal(tensor, again.trainer.state_dict()[name])
    before = again.trainer.selection.route_query.detach().clone()
    while again.done < 1:
        again._timed_step()
    assert again.step == 12
    assert not torch.equal(before, again.trainer.selection.route_query)


def test_schedules_end_by_steps_or_by_time():
    by_steps, by_time = Schedule(1.0, 200, 1.0, 10), Schedule(1.0, None, 1.0, 10)
    assert [by_steps.done(s, 1e6) for s in (0, 100, 200, 300)] == [0, 0.5, 1, 1]
    assert [by_time.done(1000, s) for s in (0.0, 30.0, 90.0)] == [0, 0.5, 1]
    assert by_steps.rate(0, 0) == pytest.approx(0.1)
    assert by_steps.rate(200, 0) == pytest.approx(0.05)
    assert by_steps.rate(100, 0) == pytest.approx(0.525)
