"""A server as a child of a replica of Ray Serve: it joins the replica's cluster, and ends with it."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from typing import Any

from incomes_server.boot.startup import STOP_S
from pydantic import BaseModel, ConfigDict, Field

from incomes_plugin.orphans import guard_children

logger = logging.getLogger("incomes.endpoint")


class Where(BaseModel):
    """What a replica's process is and has; fields of the arguments of both applications.

    Attributes:
        config: settings file, with `edit_store`; the address of the cluster is the one that Serve runs in.
        flags: vLLM's flags.
        num_cpus, num_gpus, resources: what Ray reserves for each; `resources` are those that `ray start` names.
        drain_s: what runs has so long when it ends.
    """

    model_config = ConfigDict(extra="forbid")

    config: str
    flags: list[str] = []
    num_cpus: float = Field(1.0, ge=0)
    num_gpus: float = Field(0.0, ge=0)
    resources: dict[str, float] = {}
    drain_s: float = Field(30.0, gt=0)

    @property
    def actor_options(self) -> dict[str, Any]:
        """Ray's, of a replica."""
        return {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus, "resources": self.resources}


class Child:
    """A process of the `incomes` command. Its lines go to the replica's log."""

    process: subprocess.Popen[str] | None = None

    def start(self, command: str, config: str, options: list[str], flags: list[str]) -> subprocess.Popen[str]:
        """Start `incomes COMMAND` in this Ray cluster; what it prints is the caller's to read."""
        import ray

        guard_children()
        words = [sys.executable, "-m", "incomes_server.cli", command, "--config", config, *options, "--", *flags]
        own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_") or "AUTH" in name}
        own |= {"PYTHONUNBUFFERED": "1", "INCOMES_RAY_ADDRESS": ray.get_runtime_context().gcs_address}
        # Not asyncio's: Serve runs this in a loop that is not the main thread's, where SIGCHLD does not come.
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=own)
        return self.process

    def log_lines(self) -> None:
        """Pass its lines on from now, in a thread."""
        threading.Thread(target=_log_lines, args=(self.process,), daemon=True).start()

    @property
    def is_gone(self) -> bool:
        """It has ended, or was never started."""
        return self.process is None or self.process.poll() is not None

    def stop(self, drain_s: float) -> None:
        """End it as an operator does, and wait; it drains by itself."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(drain_s + STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()


def free_port() -> int:
    """One that nobody listens on, on loopback."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _log_lines(process: subprocess.Popen[str]) -> None:
    for line in process.stdout or ():
        logger.info("%s", line.rstrip())
