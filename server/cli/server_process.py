"""A server of its own for the demo: `incomes serve` as a child on free loopback ports, with a store to throw away."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

import httpx

from incomes_plugin.errors import NotReady

START_TIMEOUT_S = 600.0
STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class ServerProcess:
    """A running server.

    Attributes:
        log: what it wrote to stderr.
    """

    process: subprocess.Popen[str]
    chat_url: str
    admin_url: str
    log: Path

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@contextmanager
def server_process(
    folder: Path, on_line: Callable[[str], None], *, model: str | None = None, args: Sequence[str] = ()
) -> Iterator[ServerProcess]:
    """Start a server whose files are in `folder`; stopped on exit.

    Args:
        on_line: gets each line that the server prints while it starts.
        args: further arguments of `incomes serve`.

    Raises:
        NotReady: it ended, or was not ready in time; the message has the end of its log.
    """
    port, admin_port = free_port(), free_port()
    ports = ["--port", str(port), "--admin-port", str(admin_port)]
    store = ["--edit-store", f"sqlite:///{folder / 'edits.db'}"]
    command = [sys.executable, "-m", "incomes_server.cli", "serve", *([model] if model else []), *ports, *store, *args]
    log = folder / "server.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
    server = ServerProcess(process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}", log)
    try:
        _await_ready(server, on_line)
        yield server
    finally:
        server.stop()
        if process.stdout:
            process.stdout.close()


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _await_ready(server: ServerProcess, on_line: Callable[[str], None]) -> None:
    """Read the stage lines until the last one, then ask /readyz. A server that takes too long is ended."""
    watchdog = Timer(START_TIMEOUT_S, server.stop)
    watchdog.start()
    try:
        for line in server.process.stdout or ():
            on_line(line.rstrip())
            if "chat http://" in line:
                break
    finally:
        watchdog.cancel()
    if server.process.poll() is None:
        response = httpx.get(server.admin_url + "/readyz", timeout=10)
        if response.status_code == 200:
            return
        raise NotReady(f"the server is not ready: {response.text}")
    raise NotReady(f"the server ended while starting; the end of its log:\n{_tail(server.log)}")


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
