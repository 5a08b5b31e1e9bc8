"""Where to invest: the published boundary for the published task, and what follows for other dictionaries."""

from dataclasses import replace

from incomes_plugin.facts.check.advice import Shape, advice_lines, advise, best_line, best_of, shape_of
from incomes_plugin.facts.check.dictionary import Entry
from incomes_plugin.facts.check.outcome import Outcome
from incomes_plugin.facts.plan.memory import MeasuredKeys
from tests.incomes_plugin.facts.memories.test_linear import on_sphere

KEYS = MeasuredKeys(on_sphere(200, 48))


def test_the_published_task_gets_the_published_boundary():
    """S = R = 32, D = 8, 1,024 facts: m d + H d_h d / 2 about 2,300 with H d_h d at least 1,280."""
    found = advise(Shape(facts=1024, subjects=32, relations=32, choices=8, most_shared=8), KEYS, 256)
    assert found.width == 32
    assert found.value_parameters == 1280
    assert 2300 <= found.hidden * found.width + found.value_parameters / 2 < 2300 + found.width
    assert found.invest == "MLP"
    assert found.parameters < found.attention_only_parameters
    assert 0.1 < 1024 / found.parameters < 0.2  # published: about 0.15 facts a parameter


def test_one_fact_a_subject_is_attention():
    """To tell 300 subjects apart takes more than their 300 facts do."""
    found = advise(Shape(facts=300, subjects=300, relations=10, choices=30, most_shared=3), KEYS, 256)
    assert found.invest == "attention"
    assert found.hidden == 0
    assert found.parameters == found.attention_only_parameters


def test_the_memory_of_the_advice_is_the_smallest():
    found = advise(Shape(facts=200, subjects=100, relations=20, choices=10, most_shared=3), KEYS, 64)
    assert found.memory_recall == KEYS.recall(200, 64) < 0.99
    assert KEYS.recall(200, found.memory_width) >= 0.99 > KEYS.recall(200, found.memory_width - 64)
    assert f"needs width {found.memory_width}" in advice_lines(found, 48, 64)[2]


def test_shapes_are_counted_and_said():
    entries = [Entry(subject=f"s{i % 4}", relation=f"r{i // 4}", answer=f"a{i % 2}") for i in range(12)]
    shape = shape_of(entries)
    assert shape == Shape(facts=12, subjects=4, relations=3, choices=2, most_shared=6)
    said = "\n".join(advice_lines(advise(shape, KEYS, 256), 256, 256))
    assert "12 facts: 4 subjects, 3 relations, at most 2 answers a relation" in said
    assert "invest in" in said


def test_the_best_memory_recalls_and_knows_what_it_has_not():
    sure = Outcome("sure of all", 10, 1.0, 0.0, 0.0, 1.0, 0.4, 0.0, 1.0, 1.0, 1.0, 2048)
    good = replace(sure, name="good", recall=0.9, abstained=0.1, foreign=0.1)
    silent = replace(sure, name="silent", recall=0.1, abstained=0.9, foreign=0.0)
    assert best_of([sure, good, silent]) is good
    assert best_line(good).startswith("of these good does best at both: 90.0% of the stored")
    assert best_line(good).endswith("10.0% of the foreign ones answered, 2 KiB")
