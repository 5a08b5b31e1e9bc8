"""What the verifier learns of questions asked on, and the rules read off from held-out ones."""

from __future__ import annotations

import torch

from incomes_plugin.lab.adapt.features import Ragged
from incomes_plugin.lab.adapt.onward import Lead, joined_prompts, leads_of, onward_prompts, onward_rules
from incomes_plugin.lab.adapt.verifying import Prompts
from incomes_plugin.selection.onward import Query
from incomes_plugin.selection.routing import Router, start_from
from incomes_plugin.selection.rules import RoutingRules
from incomes_plugin.selection.verifier import Verifier

DIM = 12


def test_a_chain_gives_a_right_pair_and_a_near_miss_and_others_lead_nowhere():
    torch.manual_seed(0)
    edits = Ragged.of([torch.randn(4, DIM) for _ in range(4)])
    question = torch.cat([torch.randn(3, DIM), edits[0][:2]])
    leads = [Lead(Query.of(question), (0,), "chain", 1, 2), Lead(Query.of(question), (0,), "plain")]
    asked, refused = onward_prompts(edits, leads, 2)
    assert (asked.owners, asked.texts) == ([(1,)], ["chain"])
    assert (refused.owners, refused.near) == ([(0, 1), (0,)], [2, None])
    torch.testing.assert_close(asked.features[0], torch.cat([question[:3], edits[0][2:]]))
    both = joined_prompts(asked, Prompts(Ragged.of([question]), [(3,)], ["more"]))
    assert (both.owners, both.texts, both.near) == ([(1,), (3,)], ["chain", "more"], [None, None])
    assert len(both.features) == 2


def test_each_edit_of_a_chain_leads_on_with_what_the_ones_before_have_left_open():
    torch.manual_seed(2)
    link, other, home, name = (torch.randn(2, DIM) for _ in range(4))
    edits = Ragged.of([torch.cat([link, other]), torch.cat([other, home]), torch.cat([home, name])])
    question = torch.cat([torch.randn(1, DIM), link])
    first, second, last = leads_of(question, "chain", (0, 1, 2), (7,), edits, 2)
    assert (first.picked, first.further, first.aside) == ((0,), 1, 7)
    assert (second.picked, second.further, second.aside) == ((0, 1), 2, None)
    assert (last.picked, last.further, last.aside) == ((0, 1, 2), None, None)
    assert torch.equal(first.query.features, question)
    assert (first.query.asked, second.query.asked, last.query.asked) == (3, 1, 1)
    torch.testing.assert_close(second.query.features, torch.cat([question[:1], other]))
    torch.testing.assert_close(last.query.features, torch.cat([question[:1], home]))
    asked, refused = onward_prompts(edits, [first, second, last], 2)
    assert asked.owners == [(1,), (2,)]
    assert (refused.owners, refused.near) == ([(0, 1), (0, 1, 2)], [7, None])
    torch.testing.assert_close(refused.features[1], torch.cat([question[:1], name]))


def test_rules_ask_on_most_of_those_that_lead_further():
    torch.manual_seed(1)
    router = Router(DIM, route_dim=DIM, hidden_dim=4).requires_grad_(False)
    start_from(router, torch.randn(200, DIM))
    verifier = Verifier(DIM, 2, width=8, heads=2, layers=1).eval().requires_grad_(False)
    parts = [torch.randn(4, DIM) for _ in range(40)]
    edits, subjects = Ragged.of(parts), [str(i) for i in range(40)]
    chains = [Lead(Query.of(torch.cat([parts[i][:2], torch.randn(6, DIM)])), (i,), further=i + 20) for i in range(20)]
    plain = [Lead(Query.of(parts[i]), (i,)) for i in range(20)]
    rules = onward_rules(router, verifier, edits, subjects, [*chains, *plain], RoutingRules(), tried=0.95, false=0.0)
    ends = [Lead(lead.query, (0, *lead.picked)) for lead in chains]  # what a chain leaves open at its end
    with_ends = onward_rules(
        router, verifier, edits, subjects, [*chains, *ends, *plain], RoutingRules(), tried=0.95, false=0.0
    )
    assert with_ends == rules
    assert 1.0 < rules.open < 1e3  # a plain question is covered whole by its edit and is not asked on
    assert (
        onward_rules(router, verifier, edits, subjects, plain, RoutingRules(), tried=0.95, false=0.0) == RoutingRules()
    )
