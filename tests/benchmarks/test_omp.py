"""The OMP benchmark: what it writes, and that it compares the same problem."""

import json

from benchmarks import omp


def test_a_small_measurement(tmp_path, monkeypatch):
    monkeypatch.setattr(omp.torch, "set_num_threads", lambda _: None)  # other tests keep their threads
    sizes = ["--atoms", "200", "--width", "32", "--k", "6", "--targets", "9", "5", "3", "--rounds", "2"]
    assert omp.main([*sizes, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "omp.json").read_text())
    assert found["supports_as_scikit_learn"] == {"gram": 1.0, "residual": 1.0}
    assert set(found["cpu_ms_per_target"]) == {"gram", "residual", "scikit-learn"}
    assert len(found["cpu_ms_per_target"]["gram"]["rounds"]) == 2
    assert found["command"].startswith("python -m benchmarks.omp --atoms 200")
