"""The routing benchmark: what it simulates, what it measures, and what it writes."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.routing import Asked, Rows, Texts, markdown, measure, simulated, write
from incomes_plugin.pool.table import ROW_TOKENS

R = 16


def real(edits: int) -> Rows:
    generator = torch.Generator().manual_seed(0)
    keys = F.normalize(torch.randn(edits + 2, ROW_TOKENS, R, generator=generator), dim=-1).bfloat16()
    keys[:, 12:] = keys[:, 11:12]
    return Rows(keys, torch.cat([torch.arange(edits), torch.tensor([edits - 1, edits - 1])]))


def test_facts_are_the_same_whatever_their_number() -> None:
    few, more = Texts.invented(20, 5), Texts.invented(30, 8)
    assert more.edits[:20] == few.edits
    assert more.questions[:10] == few.questions
    assert few.owners == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_simulated_edits_are_near_copies_with_their_padding() -> None:
    rows = real(10)
    assert torch.equal(simulated(rows, 4).keys, rows.keys[:4])
    more = simulated(rows, 25)
    assert torch.equal(more.keys[:12], rows.keys)
    assert more.owners.tolist() == [*rows.owners, *(rows.owners + 10), *range(20, 25)]
    copies = more.keys[12:24].float()
    cosines = (copies * rows.keys.float()).sum(-1)
    assert (cosines[:, :12] - 0.8**0.5).abs().max() < 0.15
    assert torch.equal(copies[:, 12:], copies[:, 11:12].expand(-1, 4, -1))
    assert not torch.equal(copies, rows.keys.float())


def test_a_small_measurement(tmp_path: Path) -> None:
    rows = real(40)
    asked = [Asked(torch.ones(3), F.normalize(rows.keys[i, :3].float(), dim=-1), i) for i in range(40)]
    args = Namespace(edits=[30, 60], captured=40, timed=4, rounds=2)
    found = [measure(rows, asked, edits, args) for edits in args.edits]
    assert [row["simulated"] for row in found] == [0, 20]
    for row in found:
        assert row["recall"]["exact"] == row["recall"]["indexed"] == {1: 1.0, 4: 1.0, 8: 1.0}
        assert row["ms"]["exact"]["runs"] == row["ms"]["indexed"]["runs"] == 8
        assert row["index_bytes"] > 0
        assert row["late_edits"] == row["edits"] // 10
    machine = {"cpu": "a CPU", "cores": 2, "load_before": 0.1}
    where = {"command": "python -m benchmarks.routing", "date": "today", "commit": "1234567", "machine": machine}
    write({**where, "threads": 2, "questions": 40, "captured": 40, "rows": found}, tmp_path)
    text = (tmp_path / "routing.md").read_text()
    assert "| 30 |" in text
    assert "| 60 |" in text
    assert text.endswith("\n")
    assert markdown({**where, "threads": 2, "questions": 40, "captured": 40, "rows": []}).count("|") > 10
