"""`incomes facts check` on the default model: facts of a wording it knows, in every memory and in the pool."""

import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from incomes_plugin.errors import InvalidValue
from incomes_plugin.facts.check.dictionary import read_dictionary
from incomes_plugin.facts.check.keys import Asker
from incomes_plugin.facts.check.pool import check_pool
from incomes_plugin.facts.check.questions import questions_about
from incomes_plugin.facts.cli import app
from incomes_plugin.facts.memories.kinds import KINDS
from incomes_plugin.model import DEFAULT_MODEL_DIR
from incomes_plugin.training.data.facts import FactSource

DOCS = Path(__file__).resolve().parents[4] / "docs"


@pytest.fixture
def dictionary(tmp_path):
    path = tmp_path / "dict.jsonl"
    facts = FactSource(2027, held_out=True).distinct(14)
    lines = [
        {"subject": f.subject, "relation": f.relation.name, "answer": f.answer, "statement": f.statement,
         "question": f.relation.questions[0].format(s=f.subject),
         "rephrase": f.relation.questions[1].format(s=f.subject)}
        for f in facts
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_all_memories_side_by_side(dictionary, tmp_path, monkeypatch):
    monkeypatch.setattr(Asker.__init__, "__defaults__", (128,))
    files = (tmp_path / "out.json", tmp_path / "out.md")
    done = CliRunner().invoke(app, ["check", str(dictionary), "--ask", "4", "--width", "64", "--json", str(files[0]),
                                    "--markdown", str(files[1])])  # fmt: skip
    assert done.exit_code == 0, done.output
    outcomes = {outcome["name"]: outcome for outcome in json.loads(files[0].read_text())["outcomes"]}
    assert list(outcomes) == [*KINDS, "gist pool"]
    for outcome in outcomes.values():
        assert outcome["recall"] + outcome["wrong"] + outcome["abstained"] == pytest.approx(1.0)
    for name in ("recursive least squares", "attention", "gist pool"):
        assert outcomes[name]["old_after"] >= 0.75
        assert outcomes[name]["recall"] >= 0.6
    assert outcomes["MLP, shared answers"]["old_after"] < outcomes["recursive least squares"]["old_after"]
    page = files[1].read_text()
    assert all(name in page for name in outcomes)
    assert "invest in" in done.output


def test_a_statement_that_is_too_long_is_named(dictionary):
    lines = [json.loads(line) for line in dictionary.read_text().splitlines()]
    lines[3]["statement"] = "word " * 75
    dictionary.write_text("".join(json.dumps(line) + "\n" for line in lines))
    asker = Asker(DEFAULT_MODEL_DIR, samples=8)
    entries = read_dictionary(dictionary)
    with pytest.raises(InvalidValue, match=r"tokens, the limit of this model is 48; shorten") as refused:
        check_pool(asker, entries, questions_about(entries), 1)
    assert refused.value.param == "statement"


@pytest.mark.parametrize("command", ["capacity", "check"])
@pytest.mark.parametrize("page", ["facts.md", "cli.md"])
def test_options_are_documented(command, page):
    text = (DOCS / page).read_text()
    found = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    named = [option for parameter in found.params for option in parameter.opts if option.startswith("--")]
    assert len(named) >= 4
    assert [option for option in named if not re.search(rf"{re.escape(option)}(?![\w-])", text)] == []
