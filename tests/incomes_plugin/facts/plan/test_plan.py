"""Plans: what is measured of the default model, extrapolation against draws, refusal beyond the safe load."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from incomes_plugin.errors import InvalidValue, PoolFull
from incomes_plugin.facts import theory
from incomes_plugin.facts.check.keys import Asker
from incomes_plugin.facts.memories import LinearMemory, rules, unit_codes
from incomes_plugin.facts.plan import plan
from incomes_plugin.facts.plan.cli import app
from incomes_plugin.facts.plan.gate import GateSample
from incomes_plugin.facts.plan.measured import Leads, Measured, effective_width
from incomes_plugin.facts.plan.memory import MeasuredKeys
from incomes_plugin.facts.plan.planner import found_among, refuse_edits, refuse_facts, scale_needed
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
    assert found_among(few, 8000, picks).value == pytest.approx(truth, abs=0.06)
    shares = [found_among(few, edits, picks).value for edits in (800, 8000, 80_000)]
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_where_most_are_found_a_point_and_a_half_is_the_error(seed):
    few, many = drawn(800, questions=600, lead=6.0, seed=seed), drawn(8000, questions=600, seed=seed + 9)
    truth = float((many.wrong[:, 0] < few.right).float().mean())
    assert found_among(few, 8000, 1).value == pytest.approx(truth, abs=0.015)


def test_more_questions_make_the_interval_narrower():
    many = drawn(800, questions=600, lead=5.0)
    few = Leads(many.right[:60], many.wrong[:60])
    wide, narrow = (found_among(leads, 8000, 1) for leads in (few, many))
    assert wide.high - wide.low > narrow.high - narrow.low
    assert narrow.low < narrow.value < narrow.high


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


def a_sample(unread=2):
    """300 entries in four units, the first of which has half of them."""
    return GateSample(torch.tensor([150, 50, 50, 50 - unread]), unread)


def a_plan(edits, gate=None):
    measured = Measured(256, 100.0, 5.5, 1024, 256, 4, drawn(800), MeasuredKeys(on_sphere(300, 100)), gate)
    return plan(edits, measured, 1024), measured


def test_the_size_that_a_plan_names_is_enough_and_half_of_it_is_not():
    found, measured = a_plan(2000, a_sample())
    size = found.gate.setting
    assert (found.gate.entries, found.gate.load) == (11_000, 11_000 / size)
    refuse_edits(found, measured, size)
    with pytest.raises(PoolFull, match=rf"the fact gate is full: .*fact_gate_entries={size} ") as refused:
        refuse_edits(found, measured, size // 2)
    assert refused.value.param == "fact_gate_entries"


def test_full_units_and_unread_entries_make_the_size_larger():
    even = GateSample(torch.tensor([75, 75, 75, 75]), 0)
    assert even.size_for(11_000) == 16_384
    assert a_sample(0).listed(11_000, 8192) == 5500 - 4096
    assert a_sample(30).size_for(11_000) == 32_768  # 1,100 on the list, of which a sixteenth of 16,384 may be


def test_a_model_without_gate_has_no_size():
    found, measured = a_plan(2000)
    assert found.gate is None
    with pytest.raises(InvalidValue, match="no fact gate"):
        refuse_edits(found, measured, 65_536)


def test_more_facts_than_a_linear_memory_recalls_are_refused_with_the_next_width():
    found, _ = a_plan(2000)
    safe = replace(found, edits=found.safe_edits)
    refuse_facts(safe)
    beyond = replace(found, edits=found.safe_edits + 1, next_value_width=1216)
    with pytest.raises(PoolFull, match=rf"the {found.safe_edits:,} it holds safely; take 1,216") as refused:
        refuse_facts(beyond)
    assert refused.value.param == "width"
    with pytest.raises(PoolFull, match="split the edit set"):
        refuse_facts(replace(beyond, next_value_width=None))


def test_plan_adds_up():
    found, measured = a_plan(2000)
    assert found.pool_bytes == 11_000 * 1024
    assert found.route_bytes == 11_000 * 256
    assert found.load == pytest.approx(2000 * math.log(2000) / 102_400)
    assert found.memory_recall == measured.keys.recall(2000, 1024)
    assert found.safe == (found.safe_edits >= 2000)
    assert found.scale_theory == theory.logit_scale(2000, 100.0, 0.01)
    assert found.first.value < found.among.value


def test_the_command_measures_the_default_model_and_refuses(tmp_path, monkeypatch):
    monkeypatch.setattr(Asker.__init__, "__defaults__", (256,))
    out = tmp_path / "plan.json"
    options = ["--edits", "1000000", "--sample", "150", "--json", str(out)]
    refused = CliRunner().invoke(app, options)
    assert isinstance(refused.exception, PoolFull)
    assert "BEYOND" in refused.output
    assert "fact_gate_entries=8388608 holds them safely" in refused.output
    refused = CliRunner().invoke(app, [*options, "--fact-gate-entries", "65536"])
    assert isinstance(refused.exception, PoolFull)
    assert refused.exception.param == "fact_gate_entries"
    found = json.loads(out.read_text())["plan"]
    assert found["first"]["value"] < found["among"]["value"]
    assert 20 < found["key_width"] < 256
    assert 4 * 1e6 * 1024 < found["pool_bytes"] < 8 * 1e6 * 1024


def test_options_are_documented():
    named = [option for parameter in typer.main.get_command(app).params for option in parameter.opts]
    for page in ("facts.md", "cli.md"):
        text = (DOCS / page).read_text()
        assert [option for option in named if not re.search(rf"{re.escape(option)}(?![\w-])", text)] == []
