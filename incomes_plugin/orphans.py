"""A guardian process ends the children of a process that was killed, so that none of them stays behind.

`guard_children` is called once, before an engine or Ray is started. A killed process cannot clean up, so the guardian
is a process of its own: once a second it notes the descendants of the guarded process, and when the pipe between them
closes it ends those that still run.
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
    """Guard the process `parent_pid`: standard input is a pipe from it, which closes when it ends."""
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
    """The descendants that still run, also those whose own parent has ended. A process that got the same pid later is
    not one of them."""
    return {pid: process for pid, process in known.items() if process.is_running()}


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


if __name__ == "__main__":
    main(int(sys.argv[1]))
