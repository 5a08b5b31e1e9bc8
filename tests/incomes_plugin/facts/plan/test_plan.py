"""Plans: what is measured of the default model, extrapolation against draws, refusal beyond the safe load."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from incomes_plugin.errors import InvalidValue
from incomes_plugin.facts import theory
from incomes_plugin.facts.check.keys import Asker
from incomes_plugin.facts.memories import LinearMemory, rules, unit_codes
from incomes_plugin.facts.plan import plan, refuse_beyond_safe_load
from incomes_plugin.facts.plan.cli import app
from incomes_plugin.facts.plan.measured import Leads, Measured, effective_width
from incomes_plugin.facts.plan.memory import MeasuredKeys
from incomes_plugin.facts.plan.planner import found_among, scale_needed
from incomes_plugin.facts.theory import Rule
from tests.incomes_plugin.facts.memories.test_linear import anisotropic, names, on_sphere, right

DOCS = Path(__file__).resolve().parents[4] / "docs"


def drawn(edits, questions=150, seed=0, lead=3.5):
    """Wrong logits normal, the right one drawn around `lead`."""
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.randn(questions, edits - 1, generator=generator).sort(dim=1, descending=True).values
    return Leads(lead + torch.randn(questions, generator=generator), wrong)


@pytest.mark.parametrize("picks", [1, 4])
def test_recall_among_more_edits_is_foreseen(picks):
    few, many = drawn(800, questions=300, lead=5.0), drawn(8000, questions=300)
    truth = float(((many.wrong > few.right[:, None]).sum(dim=1) < picks).float().mean())
    assert found_among(few, 8000, picks) == pytest.approx(truth, abs=0.06)
    assert found_among(few, 800, picks) > found_among(few, 8000, picks) > found_among(few, 80_000, picks)


def test_scale_is_enough_and_grows_with_the_edits():
    few, many = drawn(800, lead=6.0), drawn(8000, lead=6.0)
    scale = scale_needed(few, 8000, 0.01)
    logits = torch.cat([few.right[:, None], many.wrong], dim=1)
    assert float((scale * logits).softmax(dim=1)[:, 0].median()) == pytest.approx(0.99, abs=0.01)
    assert scale_needed(few, 800, 0.01) < scale < scale_needed(few, 80_000, 0.01)
    assert scale_needed(drawn(800, lead=0.0), 800, 0.01) == math.inf


def test_effective_width_is_that_of_random_keys():
    assert effective_width(on_sphere(2000, 64)) == pytest.approx(64, rel=0.05)
    alike = torch.nn.functional.normalize(anisotropic(500, 64, 1), dim=-1)
    assert effective_width(alike) < 10


def test_recall_of_a_memory_is_foreseen_from_a_sample_of_its_keys():
    """Keys that look alike in families, as questions about one relation do; never more promised than there is."""
    families = on_sphere(12, 96, 7)[torch.arange(1200) % 12]
    keys = torch.nn.functional.normalize(families + 1.5 * on_sphere(1200, 96, 8), dim=-1)
    sample = MeasuredKeys(keys[:400])
    for facts, width in ((300, 64), (300, 256), (900, 256), (900, 1024)):
        codes = unit_codes(names(facts), width)
        recalled = right(LinearMemory(rules.ridge(keys[:facts], codes)), keys[:facts], codes)
        assert -0.12 < sample.recall(facts, width) - recalled < 0.02


def test_general_position_is_as_in_theory():
    sample = MeasuredKeys(on_sphere(1500, 128))
    assert sample.recall(450, 128) == pytest.approx(theory.expected_recall(Rule.RIDGE, 450, 128, 128), abs=0.02)


def test_safe_facts_and_next_width():
    sample = MeasuredKeys(on_sphere(400, 48))
    most = sample.safe_facts(128)
    assert sample.recall(most, 128) >= 0.99 > sample.recall(round(1.05 * most) + 1, 128)
    wider = sample.width_for(2 * most)
    assert sample.recall(2 * most, wider) >= 0.99 > sample.recall(2 * most, wider - 64)
    twins = on_sphere(40, 8).repeat_interleave(2, dim=0)
    assert MeasuredKeys(twins).width_for(80) is None


def test_beyond_the_safe_load_is_refused_with_the_next_size():
    refuse_beyond_safe_load(100, 100, 256, 320)
    with pytest.raises(InvalidValue, match="at most 100 are recalled at 99 %; take 320") as refused:
        refuse_beyond_safe_load(101, 100, 256, 320)
    assert refused.value.param == "edits"
    with pytest.raises(InvalidValue, match="split the edit set"):
        refuse_beyond_safe_load(101, 100, 256, None)


def test_plan_adds_up():
    keys = MeasuredKeys(on_sphere(300, 100))
    measured = Measured(256, 100.0, 5.5, 1024, 256, 4, drawn(800), keys)
    found = plan(2000, measured, 1024)
    assert found.pool_bytes == 11_000 * 1024
    assert found.route_bytes == 11_000 * 256
    assert found.load == pytest.approx(2000 * math.log(2000) / 102_400)
    assert found.memory_recall == keys.recall(2000, 1024)
    assert found.safe == (found.safe_edits >= 2000)
    assert found.scale_theory == theory.logit_scale(2000, 100.0, 0.01)
    assert found.first < found.among


def test_the_command_measures_the_default_model_and_refuses(tmp_path, monkeypatch):
    monkeypatch.setattr(Asker.__init__, "__defaults__", (256,))
    out = tmp_path / "plan.json"
    refused = CliRunner().invoke(app, ["--edits", "1000000", "--sample", "150", "--json", str(out)])
    assert isinstance(refused.exception, InvalidValue)
    assert "BEYOND" in refused.output
    found = json.loads(out.read_text())["plan"]
    assert found["first"] < found["among"]
    assert 20 < found["key_width"] < 256
    assert 4 * 1e6 * 1024 < found["pool_bytes"] < 8 * 1e6 * 1024


def test_options_are_documented():
    named = [option for parameter in typer.main.get_command(app).params for option in parameter.opts]
    for page in ("facts.md", "cli.md"):
        text = (DOCS / page).read_text()
        assert [option for option in named if not re.search(rf"{re.escape(option)}(?![\w-])", text)] == []
