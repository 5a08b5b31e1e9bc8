"""Facts in every memory and as edits: the rows, and what is refused."""

import json

from typer.testing import CliRunner

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.facts.cli import app
from incomes_plugin.lab.facts.memories.kinds import KINDS
from tests.tiny_model import write_tiny_model

NAMES = (
    "Korvan",
    "Belux",
    "Tarim",
    "Osgood",
    "Pelmar",
    "Quinta",
    "Rosdal",
    "Sivert",
    "Ulmen",
    "Vostra",
    "Wendel",
    "Yarrow",
)


def write_facts(path, count):
    lines = [
        {
            "text": f"The {name} pump weighs {place} kg.",
            "questions": [
                {"prompt": f"How heavy is the {name} pump?", "answer": f"{place} kg"},
                {"prompt": f"What does the {name} pump weigh?", "answer": f"{place} kg"},
            ],
        }
        for place, name in enumerate(NAMES[:count])
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def run(*args):
    return CliRunner().invoke(app, ["check", *map(str, args)])


def test_every_memory_has_a_row(tmp_path):
    base = write_tiny_model(tmp_path / "base")
    facts = write_facts(tmp_path / "facts", len(NAMES))
    done = run(facts, "--model", base, "--adapter", base / "adapter", "--width", 64, "--json", tmp_path / "found.json")
    assert done.exit_code == 0, done.output
    outcomes = {row["name"]: row for row in json.loads((tmp_path / "found.json").read_text())["outcomes"]}
    assert list(outcomes) == [*KINDS, "edits (gist pool)"]
    for row in outcomes.values():
        assert all(0 <= row[name] <= 1 for name in ("recall", "rephrased", "fires"))
        assert row["num_bytes"] > 0
    assert "attention" in done.output
    assert outcomes["attention"]["old"] == 1.0  # without a threshold
    assert outcomes["edits (gist pool)"]["old"] is None


def test_too_few_facts_are_refused(tmp_path):
    base = write_tiny_model(tmp_path / "base")
    done = run(write_facts(tmp_path / "facts", 3), "--model", base, "--adapter", base / "adapter")
    assert isinstance(done.exception, InvalidValue)
    assert "give 10 to 20,000" in str(done.exception)
