"""Reading against a loop over rows, heads and tokens, and against plain attention."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from incomes_plugin.gist.types import GistShape
from incomes_plugin.selection.reading import Reader, read

ROWS, HEADS, KV_HEADS, DIM, TOKENS = 3, 4, 2, 8, 5


def test_reading_equals_a_loop() -> None:
    torch.manual_seed(0)
    query, keys = torch.randn(ROWS, HEADS, DIM), torch.randn(ROWS, KV_HEADS, TOKENS, DIM)
    values, bias = torch.randn(ROWS, KV_HEADS, TOKENS, DIM), torch.randn(ROWS, TOKENS)
    bias[0, 2:] = -torch.inf
    query_map, output_map = torch.randn(HEADS, DIM, DIM), torch.randn(HEADS, DIM, DIM)
    zero_query, zero_bias = torch.randn(HEADS, DIM), torch.randn(HEADS)
    found = read(query, keys, values, bias, query_map, output_map, zero_query, zero_bias)
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(ROWS, HEADS))
    assert not found.weights[0, :, 2:].any()
    for row in range(ROWS):
        for head in range(HEADS):
            kv_head = head * KV_HEADS // HEADS
            mapped = query[row, head] @ query_map[head] / math.sqrt(DIM)
            scores = [math.exp(float(mapped @ keys[row, kv_head, i] + bias[row, i])) for i in range(TOKENS)]
            zero = math.exp(float(zero_query[head] @ query[row, head] + zero_bias[head]))
            taken = sum(s * values[row, kv_head, i] for i, s in enumerate(scores)) / sum(scores)
            torch.testing.assert_close(found.output[row, head], taken @ output_map[head], atol=1e-4, rtol=1e-4)
            assert found.gate[row, head].item() == pytest.approx(sum(scores) / (sum(scores) + zero), abs=1e-5)


def test_padding_and_other_rows_change_nothing() -> None:
    """The engine reads many requests at once, padded to the longest."""
    torch.manual_seed(1)
    maps = (torch.randn(HEADS, DIM, DIM), torch.randn(HEADS, DIM, DIM), torch.randn(HEADS, DIM), torch.randn(HEADS))
    query, keys = torch.randn(1, HEADS, DIM), torch.randn(1, KV_HEADS, TOKENS, DIM)
    values, bias = torch.randn(1, KV_HEADS, TOKENS, DIM), torch.randn(1, TOKENS)
    alone = read(query, keys, values, bias, *maps)
    pad = torch.randn(1, KV_HEADS, 3, DIM)
    padded = read(
        torch.cat([query, torch.randn(1, HEADS, DIM)]),
        torch.cat([keys, pad], 2).expand(2, -1, -1, -1),
        torch.cat([values, pad], 2).expand(2, -1, -1, -1),
        torch.cat([bias, torch.full((1, 3), -torch.inf)], 1).expand(2, -1),
        *maps,
    )
    torch.testing.assert_close(padded.output[:1], alone.output)
    torch.testing.assert_close(padded.gate[:1], alone.gate)


def test_a_fresh_reader_reads_as_the_base_attends() -> None:
    reader = Reader(GistShape((0,), (1, 2), KV_HEADS, DIM, 4), HEADS)
    keys, values = (torch.randn(1, KV_HEADS, TOKENS, DIM).expand(ROWS, -1, -1, -1) for _ in range(2))
    query = torch.randn(ROWS, HEADS, DIM)
    maps = (reader.query_map[0], reader.output_map[0], reader.zero_query[0], reader.zero_bias[0])
    found = read(query, keys, values, torch.zeros(ROWS, TOKENS), *maps)
    expected = F.scaled_dot_product_attention(query[:, :, None], keys, values, enable_gqa=True)[:, :, 0]
    torch.testing.assert_close(found.output, expected)
