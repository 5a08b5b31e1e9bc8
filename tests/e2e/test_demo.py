"""The demo is the acceptance test: `incomes demo` with the packaged model."""

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
    places = [done.stdout.index(step) for step in [*steps, "retired after", "without edits", "bit-identical", "exit 0"]]
    assert places == sorted(places)
    assert re.search(r"edit_\w+ weight [01]\.\d\d", done.stdout)
