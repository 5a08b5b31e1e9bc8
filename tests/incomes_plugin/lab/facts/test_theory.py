"""Laws of capacity: against simulation, and against each other."""

import math

import pytest
import torch

from incomes_plugin.lab.facts import theory
from incomes_plugin.lab.facts.memories import LinearMemory, rules, unit_codes
from incomes_plugin.lab.facts.theory import Rule
from tests.incomes_plugin.lab.facts.memories.test_linear import names, on_sphere, right


@pytest.mark.parametrize("rule", [Rule.HEBBIAN, Rule.RIDGE])
@pytest.mark.parametrize(("facts", "width"), [(120, 64), (300, 64), (600, 128), (900, 128)])
def test_expected_recall_is_near_what_a_memory_recalls(rule, facts, width):
    """It promises no more than there is; under loads that nobody should run it promises up to 8 points less."""
    write = {Rule.HEBBIAN: rules.hebbian, Rule.RIDGE: rules.ridge}[rule]
    shares = []
    for seed in range(4):
        keys, codes = on_sphere(facts, width, seed), unit_codes(names(facts, str(seed)), width)
        shares.append(right(LinearMemory(write(keys, codes)), keys, codes))
    assert -0.08 < theory.expected_recall(rule, facts, width, width) - sum(shares) / 4 < 0.02


def test_expected_recall_falls_with_facts_and_rises_with_width():
    for rule in Rule:
        by_facts = [theory.expected_recall(rule, facts, 256, 256) for facts in (1, 100, 1000, 3000, 10_000)]
        assert by_facts == sorted(by_facts, reverse=True)
        assert by_facts[0] == 1.0 > by_facts[-1]
        by_width = [theory.expected_recall(rule, 1000, width, width) for width in (16, 64, 128, 256)]
        assert by_width == sorted(by_width)


def test_the_largest_agrees_with_it():
    for rule in Rule:
        most = theory.facts_recalled(rule, 128, 128)
        assert theory.expected_recall(rule, most, 128, 128) >= 0.99 > theory.expected_recall(rule, most + 1, 128, 128)
    assert theory.load(theory.facts_at_load(0.2, 64, 64), 64, 64) <= 0.2
    assert theory.load(theory.facts_at_load(0.2, 64, 64) + 1, 64, 64) > 0.2


def test_logit_scale_of_the_field_notes():
    assert math.ceil(theory.logit_scale(1000, 128)) == 18
    assert math.ceil(theory.logit_scale(1_000_000, 128)) == 35
    assert theory.logit_scale(10**6, 16) == math.inf


def test_logit_scale_is_enough_for_random_keys():
    keys = on_sphere(1000, 128)
    weights = (theory.logit_scale(1000, 128, 0.01) * keys @ keys.T).softmax(dim=-1)
    assert float(torch.diagonal(weights).quantile(0.05)) > 0.99
