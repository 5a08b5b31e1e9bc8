"""A Ray cluster on loopback, as operators have one beside their servers: `ray_cluster()` starts it in its own process.

`python -m tests.ray_cluster NODES TEMP_DIR` prints the address and runs until its input ends.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from incomes_server.boot.ray_local import prepare_ray_environment

ROOT = Path(__file__).resolve().parents[1]
STORE_BYTES = 80 * 1024 * 1024


@dataclass(frozen=True)
class RayCluster:
    """A running cluster.

    Attributes:
        address: of its control store.
        token: without it nobody runs code in the cluster.
        process: parent of all its processes.
    """

    address: str
    token: str
    process: subprocess.Popen[str]

    @property
    def flags(self) -> dict[str, str]:
        """The environment of a server that shall join."""
        return {"INCOMES_RAY_ADDRESS": self.address, "INCOMES_RAY_TOKEN": self.token}

    def parts(self, mark: str) -> list[psutil.Process]:
        """Its processes with that word in their command line; the head's come first, as it is started first."""
        found = []
        children = psutil.Process(self.process.pid).children(recursive=True)
        for process in sorted(children, key=psutil.Process.create_time):
            try:
                if mark in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found


@contextmanager
def ray_cluster(nodes: int = 1) -> Iterator[RayCluster]:
    """So many Ray nodes on this machine; all of their processes are gone at the end."""
    token = secrets.token_hex(32)
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-m", "tests.ray_cluster", str(nodes), folder]
        with (Path(folder) / "log").open("w") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, cwd=ROOT
            )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            assert address, (Path(folder) / "log").read_text()[-3000:]
            yield RayCluster(address, token, process)
        finally:
            children = psutil.Process(process.pid).children(recursive=True)
            process.stdin.close()
            process.wait(60)
            process.stdout.close()
            _, alive = psutil.wait_procs(children, timeout=10)
            for child in alive:
                child.kill()


def node_ip(node: int) -> str:
    """Address of a node, 0 is the head: all of this machine, as if they were several."""
    return f"127.0.0.{node + 1}"


def main(nodes: int, folder: str) -> None:
    """Start the nodes, wait for the end of the input, stop them."""
    from ray.cluster_utils import Cluster

    how = {"num_cpus": 2, "object_store_memory": STORE_BYTES, "include_dashboard": False, "temp_dir": folder}
    cluster = Cluster(initialize_head=True, head_node_args=how)
    for node in range(1, nodes):
        cluster.add_node(num_cpus=2, object_store_memory=STORE_BYTES, node_ip_address=node_ip(node))
    sys.stdout.write(f"{cluster.address}\n")
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    prepare_ray_environment("127.0.0.1:0")
    main(int(sys.argv[1]), sys.argv[2])
