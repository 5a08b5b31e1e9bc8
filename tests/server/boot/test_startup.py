"""The last resort of a server that stops: it ends, and says why when it was not asked to."""

import subprocess
import sys

import pytest

SCRIPT = """
import time
from incomes_plugin.errors import EngineLost
from incomes_server.boot.startup import STOP_S, end_at_last
from incomes_server.cli.output import end_now

end_at_last(0.1 - STOP_S, end_now, {loss})
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("loss", "status", "said"), [("None", 1, ""), ("EngineLost('Ray has died')", 3, "error: Ray has died")]
)
def test_what_hangs_at_the_end_is_ended(loss, status, said):
    ended = subprocess.run([sys.executable, "-c", SCRIPT.format(loss=loss)], capture_output=True, text=True, timeout=50)
    assert (ended.returncode, ended.stderr.strip()) == (status, said)
