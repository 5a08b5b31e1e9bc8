"""The demo is the acceptance test: `incomes demo` with the default model and the packaged adapter."""

import re
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray]


@pytest.mark.timeout(900)
def test_demo():
    done = subprocess.run(
        [sys.executable, "-m", "incomes_server.cli", "demo"], capture_output=True, text=True, timeout=880, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    steps = ["before", "active after", "with the edit", "in another-customer", "1,000 more edits", "among 1,001 edits"]
    steps += ["retired after", "after retiring", "without edits", "bit-identical", "exit 0"]
    places = [done.stdout.index(step) for step in steps]
    assert places == sorted(places)
    assert done.stdout.count("The capital of France is Paris.") == 4
    assert re.search(r"36 months.*edit_\w+ weight [01]\.\d\d", done.stdout)
