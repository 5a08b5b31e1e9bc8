"""OpenStack Swift on loopback, an object storage that speaks S3: `swift()` starts its four servers in a folder.

`deploy/setup/swift.sh` installs it, apart from this environment.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from incomes_server.boot.child import free_port

BIN = Path(__file__).resolve().parents[1] / "build" / "swift" / "bin"
IS_HERE = (BIN / "swift-proxy-server").is_file()
RINGS = ("account", "container", "object")
START_S = 60.0

SERVER = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
workers = 0
"""
STORAGE = """
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
fallocate_reserve = 0
"""
PROXY = """
[pipeline:main]
pipeline = catch_errors cache s3api tempauth proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
[filter:s3api]
use = egg:swift#s3api
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
"""


@dataclass
class Swift:
    """Its servers."""

    folder: Path
    port: int
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What a client of S3 reads."""
        keys = {"AWS_ACCESS_KEY_ID": "test:tester", "AWS_SECRET_ACCESS_KEY": "testing"}
        return keys | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}", "AWS_DEFAULT_REGION": "us-east-1"}

    def start(self, name: str, port: int) -> None:
        """Start one of them, and wait until it listens."""
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [str(BIN / f"swift-{name}-server"), str(self.folder / f"{name}.conf"), "-v"]
            env = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}
            self.running[name] = subprocess.Popen(command, stdout=log, stderr=log, env=env)
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s:
            assert self.running[name].poll() is None, (self.folder / f"{name}.log").read_text()[-3000:]
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            time.sleep(0.05)
        raise AssertionError(f"{name} does not listen")

    def stop(self, name: str) -> None:
        """End one of them."""
        process = self.running.pop(name)
        process.terminate()
        process.wait(30)


@contextmanager
def swift(folder: Path) -> Iterator[Swift]:
    """All four; what they keep is in the folder, whose file system has to know extended attributes."""
    (folder / "devices" / "d1").mkdir(parents=True)
    (folder / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = a\nswift_hash_path_prefix = b\n"
        "[storage-policy:0]\nname = gold\ndefault = yes\n"
    )
    ports = {name: free_port() for name in (*RINGS, "proxy")}
    for name, port in ports.items():
        head = SERVER.format(port=port, folder=folder, user=os.environ.get("USER", "root"))
        (folder / f"{name}.conf").write_text(head + (PROXY if name == "proxy" else STORAGE.format(name=name)))
        for step in [["create", "4", "1", "0"], ["add", f"r1z1-127.0.0.1:{port}/d1", "1"], ["rebalance"]]:
            if name != "proxy":
                ring = [str(BIN / "swift-ring-builder"), str(folder / f"{name}.builder"), *step]
                subprocess.run(ring, check=True, capture_output=True)
    found = Swift(folder, ports["proxy"])
    try:
        for name, port in ports.items():
            found.start(name, port)
        yield found
    finally:
        for name in list(found.running):
            found.stop(name)
