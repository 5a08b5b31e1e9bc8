"""A gist comes out of a capture whole or not at all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from incomes_plugin.errors import CompressionFailed
from incomes_plugin.gist.spelling import Spelling
from incomes_plugin.vllm.captures import CaptureStore
from incomes_plugin.vllm.rows import RequestTag
from tests.incomes_plugin.pool.small import SHAPE, adapter

TOKENS = 3
SPELLED = [(7, 0, -1), (8, 1, 0), (9, 2, 1), (70_000, 1, -1), (9, 2, 3)]


def captured(spelled: list[tuple[int, int, int]], number: float = 0.5) -> Any:
    """What comes of a capture of three tokens whose numbers are all the same."""
    heads = torch.full((TOKENS, len(SHAPE.layers), SHAPE.num_kv_heads, SHAPE.head_dim), number)
    cached: Any = SimpleNamespace(
        features=lambda *_: torch.full((TOKENS, SHAPE.feature_dim), number),
        keys=lambda *_: heads,
        values=lambda *_: heads,
    )
    store = CaptureStore(adapter())
    store.finish(RequestTag(capture="c", first=1, count=TOKENS), cached, torch.arange(4))
    return store.take("c", "edit_1", 2, Spelling.of(spelled))


def test_a_gist_has_the_spelling_that_it_is_taken_with() -> None:
    gist = captured(SPELLED)
    assert gist.edit == ("edit_1", 2)
    assert gist.spelling.rows == SPELLED


@pytest.mark.parametrize(
    "spelled",
    [
        pytest.param([], id="none"),
        pytest.param(SPELLED[:2], id="of a shorter text"),
        pytest.param([*SPELLED, (9, 3, -1)], id="of a longer text"),
        pytest.param([*SPELLED, (9, 2, 5)], id="a link to itself"),
        pytest.param([*SPELLED, (9, -1, -1)], id="a place before the text"),
    ],
)
def test_an_edit_that_cannot_be_copied_is_not_captured(spelled: list[tuple[int, int, int]]) -> None:
    with pytest.raises(CompressionFailed, match="the gist of edit_1 has no spelling of its 3 tokens"):
        captured(spelled)


def test_numbers_that_are_not_finite_are_no_gist() -> None:
    with pytest.raises(CompressionFailed, match="edit_1 is not finite"):
        captured(SPELLED, torch.nan)
