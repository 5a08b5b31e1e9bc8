"""`python -m benchmarks.omp`: seconds of one core that OMP takes for a row, ours by both paths against scikit-learn's.

Random atoms with a decaying spectrum and clusters, as embeddings have. CPU time, not wall time, one thread for all;
paths take turns, so that a busy machine slows them alike. Writes omp.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console

from benchmarks.omp_external import compare
from incomes_plugin.lab.provenance import provenance
from incomes_plugin.lab.transplant.omp import Path as OmpPath
from incomes_plugin.lab.transplant.omp import solve

RESULTS = Path(__file__).parent / "results"
Sets = list[set[int]]
console = Console(stderr=True, highlight=False)


def main(argv: list[str]) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.omp", description=__doc__)
    parser.add_argument("--atoms", type=int, default=8192)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument(
        "--targets", type=int, nargs=3, default=[384, 16, 4], help="a round: gram, residual, scikit-learn"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--tokensurgeon", help="command of mergekit's tool, run as a program on --external-targets rows"
    )
    parser.add_argument("--external-targets", type=int, default=384)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    where = provenance(f"python -m benchmarks.omp {' '.join(argv)}".strip())
    found = measure(args.atoms, args.width, args.k, args.targets, args.rounds)
    if args.tokensurgeon:
        rows = problem(args.atoms, args.width, args.external_targets)
        found["tokensurgeon"] = compare(args.tokensurgeon, *rows, args.k)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "omp.json").write_text(json.dumps(where | found, indent=1) + "\n")
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 0


def measure(atoms: int, width: int, k: int, targets: list[int], rounds: int) -> dict[str, Any]:
    """CPU milliseconds a target by path, without what is done once; shares of targets with scikit-learn's support."""
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    with threadpool_limits(1):
        dictionary, wanted = problem(atoms, width, max(targets) * rounds)
        _sets(dictionary, wanted[:1], k, OmpPath.GRAM)  # libraries start, memory is touched
        spent: dict[str, list[float]] = {}
        once: list[float] = []
        same: dict[str, list[float]] = {"gram": [], "residual": []}
        for turn in range(rounds):
            rows = wanted[turn * max(targets) :]
            once.append(_cpu_s(lambda rows=rows: _sets(dictionary, rows[:1], 1, OmpPath.GRAM))[0])  # type: ignore[misc]
            gram_s, gram = _cpu_s(lambda rows=rows: _sets(dictionary, rows[: targets[0]], k, OmpPath.GRAM))  # type: ignore[misc]
            residual_s, residual = _cpu_s(lambda rows=rows: _sets(dictionary, rows[: targets[1]], k, OmpPath.RESIDUAL))  # type: ignore[misc]
            sklearn_s, theirs = _cpu_s(lambda rows=rows: _scikit_learn(dictionary, rows[: targets[2]], k))  # type: ignore[misc]
            seconds = {"gram": gram_s - once[-1], "residual": residual_s, "scikit-learn": sklearn_s}
            for (name, value), count in zip(seconds.items(), targets, strict=True):
                spent.setdefault(name, []).append(1000 * value / count)
            same["gram"].append(_agreement(gram, theirs))
            same["residual"].append(_agreement(residual, theirs))
            console.print({name: round(values[-1], 1) for name, values in spent.items()})
    return {
        "atoms": atoms,
        "width": width,
        "k": k,
        "targets_a_round": targets,
        "threads": 1,
        "gram_once_cpu_s": {"median": median(once), "rounds": once},
        "cpu_ms_per_target": {name: {"median": median(values), "rounds": values} for name, values in spent.items()},
        "supports_as_scikit_learn": {name: min(values) for name, values in same.items()},
    }


def problem(atoms: int, width: int, targets: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Atoms and targets from the same clusters."""
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.linspace(2, 0.2, width)
    centres = torch.randn(64, width, generator=generator)
    owners = torch.randint(64, (atoms + targets,), generator=generator)
    rows = (centres[owners] + torch.randn(atoms + targets, width, generator=generator)) * spectrum
    return rows[:atoms], rows[atoms:]


def _cpu_s(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def _sets(dictionary: torch.Tensor, targets: torch.Tensor, k: int, path: OmpPath) -> Sets:
    return [set(row[row >= 0].tolist()) for row in solve(dictionary, targets, k, path=path).support]


def _scikit_learn(dictionary: torch.Tensor, targets: torch.Tensor, k: int) -> Sets:
    from sklearn.linear_model import orthogonal_mp

    found = orthogonal_mp(dictionary.double().numpy().T, targets.double().numpy().T, n_nonzero_coefs=k)
    return [set(column.nonzero()[0].tolist()) for column in found.reshape(len(dictionary), -1).T]


def _agreement(ours: Sets, theirs: Sets) -> float:
    """Share of their targets whose support is the same."""
    return sum(one == other for one, other in zip(ours, theirs, strict=False)) / len(theirs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
