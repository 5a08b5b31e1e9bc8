"""The compiled loops of verification compute what its tensor operations compute."""

from __future__ import annotations

import pytest
import torch

from incomes_plugin.selection import likeness
from incomes_plugin.selection import verifier as verification
from incomes_plugin.selection.likeness import in_loops, liken
from incomes_plugin.selection.verifier import Verifier

T, E, PARTS, WIDTH = 9, 7, 3, 8


@pytest.fixture
def pairs() -> tuple[torch.Tensor, ...]:
    """Cosines, cosines by feature layer and which pairs are real, of three pairs with runs of same tokens; the second
    edit and all questions are padded."""
    generator = torch.Generator().manual_seed(4)
    by_part = torch.rand(3, T, E, PARTS, generator=generator) * 0.9
    for t, e in [(0, 0), (1, 1), (4, 2), (5, 3), (6, 4), (8, 6), (2, 6), (3, 0)]:
        by_part[:, t, e, 0] = 1.0
    present = torch.ones(3, T, E, dtype=torch.bool)
    present[:, :2], present[1, :, 4:] = False, False
    return torch.rand(3, T, E, generator=generator), by_part, present


def test_likenesses_are_those_of_tensor_operations(pairs: tuple[torch.Tensor, ...]) -> None:
    with torch.no_grad():
        loops = liken(*pairs)
    for got, wanted in zip(loops, liken(*pairs), strict=True):  # with gradients no loops run
        assert got.shape == wanted.shape
        torch.testing.assert_close(got, wanted)
    assert loops.alike[0, 5, 3, -3].expm1().round() == 3  # in the middle of a run of three
    assert (loops.alike[1, 6, 4] == -1.0).all()  # of padding


def test_a_verification_in_loops_has_the_logits_of_tensor_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(7)
    verifier = Verifier(PARTS * WIDTH, PARTS, width=16, heads=2, layers=3).eval().requires_grad_(False)
    question, edit = torch.randn(1, T, PARTS * WIDTH), torch.randn(4, E, PARTS * WIDTH)
    edit[2, 1:4] = question[0, 5:8]
    given = (
        question, torch.rand(1, T), torch.arange(T)[None] >= 2, edit,
        torch.arange(E) < torch.tensor([7, 7, 5, 1])[:, None], torch.rand(4, T, E),
    )  # fmt: skip
    with torch.inference_mode():
        loops = verifier(*given)
        for module in (likeness, verification):
            monkeypatch.setattr(module, "in_loops", lambda numbers: False)
        torch.testing.assert_close(loops, verifier(*given), atol=1e-5, rtol=1e-5)


def test_loops_run_on_a_cpu_where_nothing_is_trained() -> None:
    numbers = torch.zeros(1)
    assert not in_loops(numbers)
    with torch.no_grad():
        assert in_loops(numbers)
        assert not in_loops(numbers.double())
        assert not in_loops(numbers.to("meta"))
