"""The store's benchmark in short: both databases, every figure, and that bulk adds keep up with raw commits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.store import DATABASES, RATIOS, main
from tests.postgres import need_programs


@pytest.mark.slow
def test_a_quick_run_has_every_figure_of_both_databases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need_programs()
    assert main(["--quick", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "store.json").read_text())["databases"]
    assert tuple(found) == DATABASES
    for rates in found.values():
        assert {f"{name}_to_{raw}" for name, raw in RATIOS} < rates.keys()
        assert all(value > 0 for value in rates.values())
        assert rates["bulk_to_raw_single"] >= 0.5
    assert capsys.readouterr().out == (tmp_path / "store.md").read_text()
