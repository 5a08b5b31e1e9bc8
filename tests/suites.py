"""`python -m tests.suites [--coverage] [pytest options]`: all suites, two side by side, as `make test` runs them.

Engine tests and Ray tests each want to be the first in a process to import Ray, so every suite is a process of its own.
What a suite prints is kept until it ends; every minute a line says how far the running ones are.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SUITES = (
    ("tests/server",),
    ("tests/e2e",),
    ("tests/attack",),
    ("tests/incomes_plugin",),
    ("tests/docs", "tests/setup", "tests/benchmarks", "tests/deploy"),
)
"""The longest first, so that both ends come at about the same time."""

SIDE_BY_SIDE = 2
STILL_RUNNING_S = 60.0
NOTHING_COLLECTED = 5

_printing = threading.Lock()


def main(options: Sequence[str]) -> int:
    """Run all suites; status 1 when one failed."""
    with_coverage = "--coverage" in options
    rest = [option for option in options if option != "--coverage"]
    with tempfile.TemporaryDirectory(prefix="incomes-tests-") as name, ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
        folder = Path(name)
        started_s = time.monotonic()
        ran = threads.map(lambda suite: run_suite(suite, rest, folder, with_coverage), SUITES)
        failed = [suite for suite, status in zip(SUITES, ran, strict=True) if status not in (0, NOTHING_COLLECTED)]
        if with_coverage:
            report_coverage(folder)
    for suite in failed:
        print(f"failed: {' '.join(suite)}")  # noqa: T201
    print(f"{len(SUITES)} suites, {len(failed)} failed, in {time.monotonic() - started_s:.0f} s")  # noqa: T201
    return 1 if failed else 0


def run_suite(suite: tuple[str, ...], options: Sequence[str], folder: Path, with_coverage: bool) -> int:
    """Run one suite to its end and print what it said; returns pytest's status."""
    name = suite[0].replace("/", "-")
    env = os.environ | {"COVERAGE_FILE": str(folder / f"coverage-{name}")}
    coverage = ["--cov", "--cov-report="] if with_coverage else []
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--durations=10", *coverage, *options, *suite]
    printed = folder / f"{name}.txt"
    with printed.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=env)
        while True:
            try:
                status = process.wait(STILL_RUNNING_S)
                break
            except subprocess.TimeoutExpired:
                say(f"{suite[0]}: {progress(printed.read_text(errors='replace'))}")
    say(f"\n$ pytest {' '.join(suite)}\n{printed.read_text(errors='replace')}")
    return status


def progress(printed: str) -> str:
    """The last percentage that pytest printed."""
    return next(iter(re.findall(r"\[ *(\d+)%\]", printed)[::-1]), "0") + " %"


def report_coverage(folder: Path) -> None:
    """Put the lines that all suites ran together and print them by file."""
    coverage = [sys.executable, "-m", "coverage"]
    subprocess.run([*coverage, "combine", "--quiet", *map(str, folder.glob("coverage-*"))], check=True)
    subprocess.run([*coverage, "report"], check=True)


def say(text: str) -> None:
    """Print at once, and never in the middle of what another suite printed."""
    with _printing:
        print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
