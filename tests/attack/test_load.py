"""Chats, adds and retires side by side: no error, probes answer at once, no process grows."""

import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.attack.conftest import CHAT, IS_LONG, note

pytestmark = [pytest.mark.attack, pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray, pytest.mark.timeout(1800)]

SECONDS = int(os.environ.get("ATTACK_SECONDS", 600 if IS_LONG else 15))
CHATS, ADDS_A_SECOND = (64, 20) if IS_LONG else (16, 5)
WRITERS = 8
LIVE = 20 if IS_LONG else 2
"""Edits that each writer keeps; the oldest is retired for a new one."""

PROBE_P95_S = 0.1
GROWTH_BYTES = 24 << 20
"""A process may grow by so much after the first minute."""


PROBE = """
import json, sys, time, httpx
url, end_s = sys.argv[1], time.monotonic() + float(sys.argv[2])
probes, wrong = {"readyz": [], "livez": []}, []
with httpx.Client(base_url=url, timeout=30) as client:
    while time.monotonic() < end_s:
        for path, found in probes.items():
            at_s = time.perf_counter()
            answer = client.get("/" + path)
            found.append(time.perf_counter() - at_s)
            if answer.status_code != 200:
                wrong.append((path, answer.text[:300]))
        time.sleep(0.1)
print(json.dumps([probes, wrong]))
"""
KV_BLOCKS = 512
"""So few that all are in use within seconds: memory of blocks counts from their first use on."""


class Load:
    def __init__(self, target):
        self.target = target
        self.end_s = time.monotonic() + SECONDS
        self.errors = []
        self.chats = self.adds = self.retires = 0
        self.probes = {}
        self.rss = {}

    @property
    def runs(self):
        return time.monotonic() < self.end_s

    def chat(self):
        with self.target.chat() as client:
            while self.runs:
                answer = client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 16})
                self.chats += 1
                self._check(answer)

    def write(self, number):
        live = deque()
        with self.target.admin() as client:
            for i in itertools.count():
                at_s = self.end_s - SECONDS + i * WRITERS / ADDS_A_SECOND
                time.sleep(max(0, at_s - time.monotonic()))
                if not self.runs:
                    return
                answer = client.post("/v1/edits", json={"text": f"Fact {number}-{i} is true."})
                self.adds += 1
                if self._check(answer):
                    live.append(answer.json()["id"])
                if len(live) > LIVE:
                    self._check(client.post(f"/v1/edits/{live.popleft()}/retire", params={"timeout_s": 60}))
                    self.retires += 1

    def probe(self):
        """By a process of its own: 74 busy threads here would make an answer look late."""
        command = [sys.executable, "-c", PROBE, self.target.process.admin_url, str(SECONDS)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        self.probes, wrong = json.loads(said)
        self.errors += wrong

    def watch(self):
        parent = psutil.Process(self.target.process.process.pid)
        while self.runs:
            for process in [parent, *parent.children(recursive=True)]:
                try:
                    name = " ".join(part.rpartition("/")[2] for part in process.cmdline())[:60] or process.name()
                    self.rss.setdefault((process.pid, name), []).append(process.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue
            time.sleep(2)

    def _check(self, answer):
        if answer.status_code >= 400:
            self.errors.append((answer.request.url.path, answer.status_code, answer.text[:300]))
        return answer.status_code < 400


@pytest.fixture(scope="module")
def target(tmp_path_factory, start):
    with pytest.MonkeyPatch.context() as patch, start_with_few_kernels(patch, tmp_path_factory, start) as running:
        yield running


def start_with_few_kernels(patch, tmp_path_factory, start):
    """PyTorch's oneDNN keeps a kernel for each of the last 1,024 shapes of a batch, some 100 MiB that fill up while new
    shapes turn up, by chats alone too. With 16 of them what grows is something else."""
    patch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    return start(tmp_path_factory.mktemp("load"), flags=("--num-gpu-blocks-override", str(KV_BLOCKS)))


def test_load(target):
    load = Load(target)
    with ThreadPoolExecutor(CHATS + WRITERS + 2) as pool:
        running = [pool.submit(load.chat) for _ in range(CHATS)]
        running += [pool.submit(load.write, i) for i in range(WRITERS)]
        watcher = threading.Thread(target=load.watch)
        watcher.start()
        running.append(pool.submit(load.probe))
        for task in running:
            task.result()
        watcher.join()
    probes = {path: statistics.quantiles(seconds, n=100) for path, seconds in load.probes.items()}
    grown = {name: growth(sizes) for name, sizes in load.rss.items() if len(sizes) > 40}
    figures = {"seconds": SECONDS, "chats": load.chats, "adds": load.adds, "retires": load.retires}
    figures |= {"errors": len(load.errors), "load_of_the_machine": os.getloadavg()}
    figures |= {f"{path}_p{at}_ms": round(1e3 * found[at - 1], 1) for path, found in probes.items() for at in (50, 95)}
    figures |= {"rss_growth_mib": {f"{pid} {name}": g / 2**20 for (pid, name), g in grown.items()}}
    note(attack="load", **figures)
    assert load.errors == [], load.errors[:3]
    assert load.chats > CHATS
    if IS_LONG:
        assert all(found[94] < PROBE_P95_S for found in probes.values()), figures
        assert all(growth < GROWTH_BYTES for growth in grown.values()), figures
    assert target.pinned() == 0


def growth(sizes):
    """Median of the last part over the median of the part that follows the first minute (a tenth)."""
    tenth = len(sizes) // 10
    return statistics.median(sizes[-tenth:]) - statistics.median(sizes[tenth : 2 * tenth])
