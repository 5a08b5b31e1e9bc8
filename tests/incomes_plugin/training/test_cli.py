"""Options become the recipe they name; what a recipe has no use for is refused, by name."""

import pytest

from incomes_plugin.errors import InvalidValue
from incomes_plugin.training.cli import Tune, make_run
from incomes_plugin.training.loop import Run
from incomes_plugin.training.run import RunOptions


@pytest.mark.parametrize(
    ("tune", "given", "base", "message"),
    [
        (Tune.SCRATCH, {"size": "huge"}, None, "small, base"),
        (Tune.SCRATCH, {}, "x", "--grow-from"),
        (Tune.FULL, {}, None, "--base"),
        (Tune.FULL, {"num_layers": 3}, "x", "has no num_layers"),
        (Tune.FULL, {"size": "small"}, "x", "has no size"),
        (Tune.ADAPTER, {}, None, "--base"),
        (Tune.ADAPTER, {"num_layers": 3}, "x", "has no num_layers"),
        (Tune.READING, {}, None, "--base"),
        (Tune.READING, {"gist_layers": 1}, "x", "has no gist_layers"),
    ],
)
def test_what_is_refused(tmp_path, tune, given, base, message):
    options = RunOptions(tmp_path / "run", None, base=None if base is None else tmp_path / base)
    with pytest.raises(InvalidValue, match=message):
        make_run(tune, options, given)
    assert not (tmp_path / "run").exists()


def test_no_such_device(tmp_path):
    with pytest.raises(InvalidValue, match="no device 'tpu'"):
        make_run(Tune.SCRATCH, RunOptions(tmp_path, None, device="tpu"), {})


def test_a_size_and_a_change_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr("incomes_plugin.training.loop._TOKENIZER_FACTS", 200)
    run = make_run(Tune.SCRATCH, RunOptions(tmp_path, None), {"size": "base", "num_layers": 3, "steps": 5})
    assert isinstance(run, Run)
    config = run.trainer.model.config
    assert (config.hidden_size, config.num_hidden_layers, run.schedule.steps) == (512, 3, 5)
