"""The server with the rights that the chart gives: user 10001, no capabilities, a read-only root, four places to write.

There is no container here, so a mount namespace is one: the same kernel calls, without an image.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from incomes_server.cli.server_process import free_port

from tests.e2e.conftest import VLLM_FLAGS, adapter_of

MAY_UNSHARE = os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], check=False).returncode == 0
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.vllm,
    pytest.mark.ray,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not MAY_UNSHARE, reason="NOT CHECKED that the server runs read-only: needs root and unshare(1)"),
]

ROOT = Path(__file__).resolve().parents[2]
START_S = 900.0
USER = "10001"
# An interpreter in root's home is out of the user's reach; it gets a place of the same name that is not.
CONFINE = """
set -e
place=$1; prefix=$2; shift 2
mount --make-rprivate /
for writable in "$place/cache" "$place/lib" /tmp /dev/shm; do mount -t tmpfs -o mode=1777 tmpfs "$writable"; done
case $prefix in /root/*)
  mount --bind "$prefix" /mnt
  mount -t tmpfs -o mode=755 tmpfs /root
  mkdir -p "$prefix"
  mount --bind /mnt "$prefix"
esac
mount -o remount,bind,ro /
exec setpriv --reuid $USER_ID --regid $USER_ID --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""


@pytest.fixture
def place(tiny_model: Path) -> Iterator[Path]:
    """A folder outside of /tmp with the model, which the user may read, and the two places that the image writes to."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    shutil.copytree(tiny_model, folder / "model")
    for name in ("cache", "lib"):
        (folder / name).mkdir()
    subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)
    yield folder
    shutil.rmtree(folder)


def test_it_serves_with_the_rights_of_the_chart(place: Path) -> None:
    port, admin_port = free_port(), free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "USER": "incomes",
        "USER_ID": USER,
        "HOME": str(place / "cache"),
        "XDG_CACHE_HOME": str(place / "cache"),
        "XDG_CONFIG_HOME": str(place / "cache" / "config"),
        "XDG_DATA_HOME": str(place / "lib"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
    }
    model = place / "model"
    serve = [sys.executable, "-m", "incomes_server.cli", "serve", str(model), *adapter_of(model)]
    serve += ["--port", str(port), "--admin-port", str(admin_port), "--", *VLLM_FLAGS]
    confined = ["unshare", "--mount", "bash", "-c", CONFINE, "confine", str(place), sys.base_prefix, *serve]
    with (place / "log").open("w") as log:
        process = subprocess.Popen(confined, env=environment, stdout=log, stderr=log, cwd=ROOT)
    try:
        await_ready(process, f"http://127.0.0.1:{admin_port}", place / "log")
        assert owner(process.pid) == USER
        text = {"text": "The warranty of the Korvan pump is 36 months."}
        url = f"http://127.0.0.1:{admin_port}/v1/edits?wait=active&timeout_s=120"
        assert httpx.post(url, json=text, timeout=180).status_code == 201
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def await_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline_s = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline_s:
        try:
            if httpx.get(url + "/readyz", timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(1)
    pytest.fail(f"not ready: {log.read_text(errors='replace')[-3000:]}")


def owner(pid: int) -> str:
    """Real user of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line for line in lines if line.startswith("Uid:")).split()[1]
