"""No process outlives the one that started it: a guardian beside a process ends its descendants when it is killed.

`guard_children` is called once by whoever is about to start an engine or Ray. The guardian is a process of its own, for
a killed process can do nothing any more; it looks once a second who the descendants are, and waits for a pipe to end.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator

import psutil

LOOK_EVERY_S = 1.0
_guardian: subprocess.Popen[bytes] | None = None


def guard_children() -> None:
    """Start this process's guardian, unless it has one."""
    global _guardian
    if _guardian is None:
        command = [sys.executable, "-m", __name__, str(os.getpid())]
        # Its own session: Ctrl-C at a terminal is for the guarded process, which then ends its children itself.
        _guardian = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def main(parent_pid: int) -> None:
    """Guard `parent_pid`, whose end of standard input closes when it ends."""
    known: dict[int, psutil.Process] = {}
    while os.getppid() == parent_pid:
        known = {process.pid: process for process in _descendants(parent_pid)} | _alive(known)
        if select.select([sys.stdin], [], [], LOOK_EVERY_S)[0]:
            break
    for process in [*known.values(), *(child for pid in known for child in _descendants(pid))]:
        _kill(process)


def _descendants(pid: int) -> Iterator[psutil.Process]:
    try:
        yield from (p for p in psutil.Process(pid).children(recursive=True) if p.pid != os.getpid())
    except psutil.NoSuchProcess:
        return


def _alive(known: dict[int, psutil.Process]) -> dict[int, psutil.Process]:
    """Those that still run: also processes whose own parent has ended. A pid that was given anew is not one of them."""
    return {pid: process for pid, process in known.items() if process.is_running()}


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


if __name__ == "__main__":
    main(int(sys.argv[1]))
