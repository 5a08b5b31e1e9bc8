"""The demo's packaged statements are what the comment beside their file says."""

from incomes_server.cli.demo_steps import FACTS_FILE, invented_facts

from incomes_plugin.lab.data.facts import FactSource


def test_the_packaged_statements_are_the_generators():
    made = [fact.statement for fact in FactSource(2026, held_out=True).distinct(1000)]
    assert invented_facts(1000) == made
    assert invented_facts(2) == made[:2]
    assert FACTS_FILE.stat().st_size < 60_000
