"""The processes of a running server by name, and waiting for what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import httpx
import psutil

from tests.attack.conftest import Target

MARKS = {
    "engine": ("VLLM::", "spawn_main"),
    "store": ("ray::EditStoreActor",),
    "scheduler": ("ray::SchedulerActor",),
    "gcs": ("gcs_server",),
    "raylet": ("raylet/raylet",),
}


def part(target: Target, name: str) -> psutil.Process | None:
    """A process of the server, if it is there now."""
    parent = psutil.Process(target.process.process.pid)
    for process in parent.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            line = " ".join(process.cmdline())
            if any(mark in line for mark in MARKS[name]):
                return process
    return None


def ready(target: Target) -> bool:
    """Whether its chat port says so."""
    return httpx.get(target.process.chat_url + "/readyz", timeout=30).status_code == 200


def seconds_until(condition: Callable[[], bool], limit_s: float) -> float:
    """Wait for it; returns how long that took."""
    start_s = time.monotonic()
    while not condition():
        assert time.monotonic() - start_s < limit_s, f"not within {limit_s} s"
        time.sleep(0.05)
    return time.monotonic() - start_s
