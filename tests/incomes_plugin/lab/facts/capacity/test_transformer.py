"""The synthetic task and the one-layer transformer: cheaper than the paper's formulas, and equal to them."""

import torch

from incomes_plugin.lab.facts.capacity.task import LENGTH, Task
from incomes_plugin.lab.facts.capacity.transformer import OneLayer, Size, recall, trained


def by_definition(model, sequence):
    """Logits of one sequence, head by head, in float64."""
    x = model.embeddings.double()[sequence]
    attended = torch.zeros(x.shape[1], dtype=torch.float64)
    for key, query, value, output in zip(model.key, model.query, model.value, model.output, strict=True):
        scores = (x @ key.double()) @ (x[-1] @ query.double()) / key.shape[1] ** 0.5
        attended += scores.softmax(dim=0) @ x @ value.double() @ output.double()
    hidden = torch.clamp(model.inner.double() @ attended + model.bias.double(), min=0)
    return model.codes.double() @ (attended + hidden @ model.outer.double())


def test_model_equals_its_definition():
    task = Task(5, 3, 4)
    model = OneLayer(task, Size(8, 2, 3, 6), seed=1).requires_grad_(False)
    model.bias += 0.1 * torch.randn(6, generator=torch.Generator().manual_seed(0))
    tokens, _ = task.ask(torch.arange(15), torch.Generator().manual_seed(2))
    expected = torch.stack([by_definition(model, sequence) for sequence in tokens])
    torch.testing.assert_close(model(tokens).double(), expected, rtol=1e-4, atol=1e-5)


def test_sequences_hold_their_fact_once():
    task = Task(5, 3, 4)
    facts = torch.arange(15)
    tokens, answers = task.ask(facts, torch.Generator().manual_seed(2))
    assert tokens.shape == (15, LENGTH)
    assert (tokens[:, -1] == task.tokens - 1).all()
    assert ((tokens < 8).sum(dim=1) == 2).all()
    assert (tokens == (facts // 3)[:, None]).any(dim=1).all()
    assert (tokens == 5 + (facts % 3)[:, None]).any(dim=1).all()
    assert torch.equal(answers // 4, facts % 3)  # of the right relation
    assert torch.equal(answers, task.answer_of.flatten())


def test_parameters_are_counted():
    size = Size(8, 2, 3, 6)
    model = OneLayer(Task(5, 3, 4), size, seed=1)
    assert sum(p.numel() for p in model.parameters()) == size.attention_parameters + size.mlp_parameters


def test_training_learns_what_an_untrained_model_does_not_know():
    task = Task(4, 4, 4)
    generator = torch.Generator().manual_seed(3)
    size = Size(16, 4, 4, 16)
    assert recall(OneLayer(task, size, seed=0), task, generator) < 0.5
    model, found = trained(task, size, steps=400, learning_rate=3e-2, batch=16, goal=0.99, seed=0)
    assert found >= 0.99
    assert recall(model, task, generator) > 0.95
