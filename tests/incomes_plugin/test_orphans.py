"""A process that is killed leaves no descendant behind; one that lives keeps them."""

import subprocess
import sys
import time

import psutil

PARENT = """
import subprocess, sys, time
from incomes_plugin.orphans import guard_children
guard_children()
middle = "import subprocess, sys, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
subprocess.Popen([sys.executable, "-c", middle], start_new_session=True)
print("started", flush=True)
time.sleep(60)
"""


def test_all_descendants_end_with_a_killed_parent():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "started\n"
        time.sleep(2.5)  # the guardian looks once a second
        family = psutil.Process(parent.pid).children(recursive=True)
        assert len(family) == 3  # guardian, middle, sleep
        assert all(process.is_running() for process in family)
        parent.kill()
        _, alive = psutil.wait_procs(family, timeout=5)
        assert alive == []
