"""The OMP benchmark: what it writes, and that it compares the same problem."""

import json
import sys

from benchmarks import omp
from benchmarks.omp_external import compare

PROGRAM = """
import sys
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
from incomes_plugin.lab.transplant.omp.reference import solve_reference
base, donor, out = map(Path, sys.argv[1:4])
method, k = sys.argv[5], int(sys.argv[7])
name = "model.embed_tokens.weight"
old, other = (load_file(folder / "model.safetensors")[name] for folder in (base, donor))
atoms, targets = other[: len(old)], other[len(old) :]
rows = torch.zeros(len(targets), old.shape[1])
if method == "omp":
    rows = solve_reference(atoms, targets, k).combine(old)
    rows[0] += 1
out.mkdir()
save_file({name: torch.cat([old, rows])}, out / "model.safetensors")
"""


def test_a_small_measurement(tmp_path, monkeypatch):
    monkeypatch.setattr(omp.torch, "set_num_threads", lambda _: None)  # other tests keep their threads
    sizes = ["--atoms", "200", "--width", "32", "--k", "6", "--targets", "9", "5", "3", "--rounds", "2"]
    assert omp.main([*sizes, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "omp.json").read_text())
    assert found["supports_as_scikit_learn"] == {"gram": 1.0, "residual": 1.0}
    assert set(found["cpu_ms_per_target"]) == {"gram", "residual", "scikit-learn"}
    assert len(found["cpu_ms_per_target"]["gram"]["rounds"]) == 2
    assert found["command"].startswith("python -m benchmarks.omp --atoms 200")


def test_an_external_tool_is_run_and_compared(tmp_path):
    """A stand-in program for the tool: copies zero rows, or the right ones plus an error in one of them."""
    program = tmp_path / "tool.py"
    program.write_text(PROGRAM)
    dictionary, targets = omp.problem(40, 16, 4)
    found = compare(f"{sys.executable} {program}", dictionary, targets, 6)
    assert found["targets"] == 4
    assert found["rows_as_ours"] == 0.75
    assert found["cpu_s_with_zero_rows"] > 0
