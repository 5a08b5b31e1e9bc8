"""Servers and compressors on one Ray cluster and one PostgreSQL, started, killed and replaced as an operator's are.

Fleet ──server()/compressor()──► processes │ Member: one that is started anew when it dies │ Front: picks who is ready
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from incomes_server.cli.server_process import ServerProcess, free_port, server_process

from incomes_plugin.errors import NotReady
from tests.ray_cluster import RayCluster, node_ip

VLLM_FLAGS = ("--max-model-len", "512", "--dtype", "float32", "--num-gpu-blocks-override", "512")
TENANTS = ("acme", "zen")
KEYS = {tenant: f"{tenant}-secret-key" for tenant in TENANTS}


@dataclass
class Fleet:
    """Where engines are started: the Ray cluster, the database, the model."""

    ray: RayCluster
    database: str
    folder: Path
    model: Path
    settings: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def server(self, *, join: bool = True, node: int = 0, **settings: Any) -> Iterator[ServerProcess]:
        """One more engine, on that node of Ray; the first makes the store, the others join it."""
        folder = self._folder()
        settings |= {"ray_node_ip": node_ip(node)}
        where = ["--join", self.ray.address] if join else ["--edit-store", self.database]
        settings |= {} if join else {"ray_address": self.ray.address}
        keys = [part for tenant, key in KEYS.items() for part in ("--api-key", f"{tenant}:{key}")]
        flags = [*self._config(folder, settings), *where, *self._adapter(), *keys, "--", *VLLM_FLAGS]
        with server_process(folder, lambda _: None, model=str(self.model), args=flags) as process:
            yield process

    @contextmanager
    def compressor(self, node: int = 0) -> Iterator[subprocess.Popen[str]]:
        """An engine that only compresses, once it does."""
        folder = self._folder()
        command = [sys.executable, "-m", "incomes_server.cli", "compress", str(self.model), *self._adapter()]
        command += ["--join", self.ray.address, "--admin-port", str(free_port())]
        command += self._config(folder, {"ray_node_ip": node_ip(node)})
        with (folder / "log").open("w") as log:
            process = subprocess.Popen([*command, "--", *VLLM_FLAGS], stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            if not any("compressing: probes" in line for line in process.stdout or ()):
                raise NotReady((folder / "log").read_text()[-3000:])
            yield process
        finally:
            process.terminate()
            process.wait(60)
            if process.stdout:
                process.stdout.close()

    def _adapter(self) -> tuple[str, str]:
        return "--adapter", str(self.model / "adapter")

    def _folder(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=self.folder))

    def _config(self, folder: Path, settings: dict[str, Any]) -> list[str]:
        file = folder / "incomes.yaml"
        shared = {"ray_token": self.ray.token, "pool_bytes": "64MiB"}
        file.write_text(yaml.safe_dump(shared | self.settings | settings))
        return ["--config", str(file)]


class Member:
    """One place of a fleet: a process that is started anew when it ends, as a supervisor would.

    Attributes:
        running: the process; None while there is none.
    """

    def __init__(self, start: Callable[[], AbstractContextManager[Any]]) -> None:
        self._start = start
        self.running: Any = None
        self.starts = 0
        self.failed_starts: list[str] = []
        self._done = self._leave = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def process(self) -> psutil.Process | None:
        """The process itself."""
        running = self.running
        if running is None:
            return None
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(getattr(running, "process", running).pid)
        return None

    def replace(self) -> None:
        """Stop it as an operator does; a new one is started."""
        self._leave = True

    def stop(self) -> None:
        """Stop it for good."""
        self._done = True
        self._thread.join()

    def _run(self) -> None:
        while not self._done:
            try:
                with self._start() as running:
                    self.starts += 1
                    self.running, self._leave = running, False
                    process = getattr(running, "process", running)
                    while not self._done and not self._leave and process.poll() is None:
                        time.sleep(0.05)
                    if self._leave:  # as a Service does: no new requests, then the signal
                        self.running = None
                        time.sleep(1)
            except NotReady as error:
                self.failed_starts.append(error.message[-500:])
            finally:
                self.running = None


class Front:
    """One address for all engines, as a Service of Kubernetes is: requests go to those whose /readyz is 200."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members
        self.ready: list[ServerProcess] = []
        self._done = False
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def pick(self) -> ServerProcess | None:
        """Any that is ready."""
        ready = [each for each in self.ready if any(member.running is each for member in self.members)]
        return random.choice(ready) if ready else None

    def stop(self) -> None:
        """Look no more."""
        self._done = True
        self._thread.join()

    def _look(self) -> None:
        while not self._done:
            self.ready = [each for member in self.members if (each := member.running) is not None and is_ready(each)]
            time.sleep(0.2)


def is_ready(server: ServerProcess) -> bool:
    """What its probe says."""
    with suppress(httpx.HTTPError):
        return httpx.get(server.chat_url + "/readyz", timeout=5).status_code == 200
    return False


def client_of(url: str, tenant: str) -> httpx.Client:
    """A client with a tenant's key."""
    return httpx.Client(base_url=url, headers={"authorization": f"Bearer {KEYS[tenant]}"}, timeout=120)
