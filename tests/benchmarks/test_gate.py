"""The benchmark's router: every token reads loud edits, about one in eight reads ordinary ones."""

from __future__ import annotations

from pathlib import Path

from benchmarks.gate import SHARE, Gate
from benchmarks.model import QUICK, prompt, random_gists, write_model


def test_the_gate_opens_for_its_share_whatever_the_number_of_edits(tmp_path: Path) -> None:
    write_model(tmp_path, QUICK, 8)
    gate = Gate(tmp_path)
    texts = [prompt(900 + i, 64) for i in range(16)]
    for count in (50, 1000):
        assert gate.opened(random_gists(gate.shape, count, 4, "loud", loud=True), texts).all()
        share = float(gate.opened(random_gists(gate.shape, count, 4, "quiet"), texts).float().mean())
        assert SHARE / 2 < share < SHARE * 2
