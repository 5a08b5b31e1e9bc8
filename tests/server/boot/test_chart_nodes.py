"""The commands that the chart gives to the pods of a cluster: a node of Ray beside each server, a token, one store.

A namespace of process ids is the container here: what a command leaves behind ends with it.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from incomes_server.boot.child import free_port

from tests.deploy.chart import place, render
from tests.deploy.test_chart import CLUSTER, COMPRESS, DEPLOYMENT, HEAD, MAIN
from tests.postgres import Cluster

CONTAINER = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
MAY_UNSHARE = os.geteuid() == 0 and subprocess.run([*CONTAINER, "true"], check=False).returncode == 0
pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not MAY_UNSHARE, reason="NOT CHECKED that the commands start Ray: needs root, unshare(1)"),
]
START_S = 200.0
JOIN = """
import asyncio, sys
from incomes_server.boot.ray_local import import_ray, ray_session
from incomes_server.boot.actors import RaySettings
from incomes_server.store.client import StoreClient
address, database, join = sys.argv[1:4]
settings = RaySettings(database, address=address, join=bool(join))
import_ray(settings)
with ray_session(settings):
    asyncio.run(StoreClient.connect("incomes"))
    print("joined", flush=True)
    sys.stdin.read()
"""


@contextmanager
def pod(found: dict[str, Any], port: int, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The container of a deployment, on loopback; in place of `incomes` a program that joins and waits."""
    main = place(found, MAIN)
    command = [*main["command"][2:], *main["args"]]
    if command[0] == "sh":
        command[2] = command[2].replace("r-incomes-ray:6379", f"127.0.0.1:{port}")
        command[2] = command[2].replace("exec incomes", f"exec {sys.executable} -c '{JOIN}'")
        command[4:] = arguments
    command = [word.replace("--port=6379", f"--port={port}") for word in command]
    env = os.environ | {e["name"]: e["value"] for e in main["env"] if e["name"].startswith("RAY_")}
    env |= {"RAY_AUTH_TOKEN_PATH": str(folder / "token"), "RAY_TMPDIR": str(folder)}
    env |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with (folder / f"{found['metadata']['name']}.log").open("w") as log:
        process = subprocess.Popen(
            [*CONTAINER, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=env
        )
    try:
        yield process
    finally:
        process.kill()  # and with it all that is in its namespace
        process.communicate()


def says(process: subprocess.Popen[str], word: str) -> bool:
    """Whether a line has it before the process ends, or the time is over."""
    end = threading.Timer(START_S, process.kill)
    end.start()
    try:
        return any(word in line for line in process.stdout or ())
    finally:
        end.cancel()


def listens(port: int, process: subprocess.Popen[str]) -> bool:
    """Until the head's port answers, or the head has ended."""
    while process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
    return False


def test_engines_start_the_store_and_compressors_find_it(postgres: Cluster) -> None:
    objects = render(CLUSTER)
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder, port = Path(name), free_port()
        (folder / "token").write_text(secrets.token_hex(32))

        def log_of(part: Sequence[str]) -> str:
            return (folder / f"{part[1]}.log").read_text()[-3000:]

        with postgres.database() as database, pod(objects[HEAD], port, folder) as head:
            assert listens(port, head), log_of(HEAD)
            address = f"127.0.0.1:{port}"
            with pod(objects[DEPLOYMENT], port, folder, address, database, "") as engine:
                assert says(engine, "joined"), log_of(DEPLOYMENT)
                with pod(objects[COMPRESS], port, folder, address, "sqlite://", "join") as compressor:
                    assert says(compressor, "joined"), log_of(COMPRESS)
