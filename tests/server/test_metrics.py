"""Gauges that come from the engine."""

from incomes_server import metrics
from prometheus_client import REGISTRY


def test_the_fact_gates_counters_become_gauges():
    metrics.show_fact_gate({"tokens_none": 3, "tokens_few": 2, "tokens_exact": 1, "memory": 50, "unread": 4, "full": 0})
    tokens = [REGISTRY.get_sample_value("incomes:fact_gate_tokens", {"answer": a}) for a in ("none", "few", "exact")]
    entries = [
        REGISTRY.get_sample_value("incomes:fact_gate_entries", {"found": f}) for f in ("memory", "unread", "full")
    ]
    assert (tokens, entries) == ([3, 2, 1], [50, 4, 0])
