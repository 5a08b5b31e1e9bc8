"""Processes that stop, are killed or lose their parent: seen within 5 s, nothing stays, nothing written is lost."""

import random
import threading
import time
import uuid
from contextlib import suppress

import httpx
import psutil
import pytest

from tests.attack.conftest import CHAT, IS_LONG, note

pytestmark = [pytest.mark.attack, pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray, pytest.mark.timeout(3000)]

MARKS = {
    "engine": ("VLLM::", "spawn_main"),
    "store": ("ray::EditStoreActor",),
    "scheduler": ("ray::SchedulerActor",),
    "gcs": ("gcs_server",),
    "raylet": ("raylet/raylet",),
}
RESTARTED_BY_RAY = ("store", "scheduler")
KILLS, WRITES = (20, 2000) if IS_LONG else (3, 30)
WRITERS = 8
SEEN_WITHIN_S = 5.0


def part(target, name):
    parent = psutil.Process(target.process.process.pid)
    for process in parent.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            line = " ".join(process.cmdline())
            if any(mark in line for mark in MARKS[name]):
                return process
    return None


def ready(target):
    return httpx.get(target.process.chat_url + "/readyz", timeout=30).status_code == 200


def seconds_until(condition, limit_s):
    start_s = time.monotonic()
    while not condition():
        assert time.monotonic() - start_s < limit_s, f"not within {limit_s} s"
        time.sleep(0.05)
    return time.monotonic() - start_s


@pytest.mark.parametrize("name", MARKS)
def test_a_stopped_part_is_seen(target, name):
    process = part(target, name)
    process.suspend()
    try:
        seen_s = seconds_until(lambda: not ready(target), SEEN_WITHIN_S + 0.5)
    finally:
        process.resume()
    note(attack="stop", part=name, not_ready_after_s=round(seen_s, 2))
    seconds_until(lambda: ready(target), 60)
    with target.chat() as client:
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200


@pytest.mark.parametrize("name", RESTARTED_BY_RAY)
def test_a_killed_actor_comes_back(target, name):
    with target.admin() as admin:
        edit = admin.post("/v1/edits", json={"text": f"Before {name}."}, params={"wait": "active"}).json()
        part(target, name).kill()
        answer = admin.post("/v1/edits", json={"text": f"After {name}."}, params={"wait": "active", "timeout_s": 60})
        assert answer.json()["reached"] == "active", answer.text
        assert admin.get(f"/v1/edits/{edit['id']}").json()["status"] == "ready"
    seconds_until(lambda: ready(target), 30)


@pytest.mark.parametrize("name", ["main", "gcs", "raylet"] if IS_LONG else ["main", "raylet"])
def test_nothing_outlives_a_killed_part(tmp_path, start, name):
    with start(tmp_path) as target:
        server = target.process.process
        family = psutil.Process(server.pid).children(recursive=True)
        (server if name == "main" else part(target, name)).kill()
        assert server.wait(30) == (-9 if name == "main" else 3)
        start_s = time.monotonic()
        _, alive = psutil.wait_procs(family, timeout=SEEN_WITHIN_S)
        note(attack="kill", part=name, all_gone_after_s=round(time.monotonic() - start_s, 2))
        assert not alive, [p.cmdline() for p in alive]


class Supervised:
    """A server that is started anew when it ends, as systemd would."""

    def __init__(self, start, folder):
        self._start, self._folder = start, folder
        self.target = None
        self.starts = 0
        self.done = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self.done:
            with self._start(self._folder) as target:
                self.starts += 1
                self.target = target
                while not self.done and target.process.process.poll() is None:
                    time.sleep(0.1)
                self.target = None

    def stop(self):
        self.done = True
        self._thread.join()


class Writes:
    """Writers repeat what was not acknowledged, under its Idempotency-Key; chats check that what was is there."""

    def __init__(self, supervised):
        self.supervised = supervised
        self.added, self.retired, self.asked_to_retire = {}, set(), set()
        self.stale, self.chats = [], 0
        self._lock = threading.Lock()

    def write(self, number):
        for i in range(WRITES // WRITERS):
            name = f"w{number}-{i}"
            body = {"text": f"Fact {name}.", "external_id": name}
            edit = self._until_done("/v1/edits", body, {"wait": "active", "timeout_s": 30}, 201)
            with self._lock:
                self.added[edit["id"]] = name
            if i % 5 == 2:
                with self._lock:
                    self.asked_to_retire.add(edit["id"])
                self._until_done(f"/v1/edits/{edit['id']}/retire", None, {"timeout_s": 30}, 200)
                with self._lock:
                    self.retired.add(edit["id"])
            self._chat()

    def _until_done(self, path, body, params, status):
        key = str(uuid.uuid4())
        while True:
            target = self.supervised.target
            if target is not None:
                with suppress(httpx.HTTPError), target.admin() as client:
                    answer = client.post(path, json=body, params=params, headers={"idempotency-key": key})
                    if answer.status_code == status:
                        return answer.json()
                    assert answer.status_code in (200, 202, 503), answer.text
            time.sleep(0.2)

    def _chat(self):
        """The snapshot of an answer has every edit acknowledged before it, and none retired before it."""
        with self._lock:
            least = len(self.added) - len(self.asked_to_retire)
        target = self.supervised.target
        if target is None:
            return
        with suppress(httpx.HTTPError), target.chat() as client:
            answer = client.post("/v1/chat/completions", json=CHAT)
            if answer.status_code == 200:
                self.chats += 1
                with self._lock:
                    most = WRITES  # adds not yet acknowledged may be in
                if not least <= int(answer.headers["x-incomes-edits"]) <= most:
                    self.stale.append((least, answer.headers["x-incomes-edits"], most))
            else:
                assert answer.status_code == 503, answer.text


def everything(target):
    found, after = [], None
    with target.admin() as client:
        while True:
            answer = client.get("/v1/edits", params={"limit": 100} | ({"after": after} if after else {}))
            page = answer.raise_for_status().json()
            found += page["data"]
            after = page["last_id"]
            if not page["has_more"]:
                return found


def everything_once_up(supervised):
    """The last kill may come after the last write: a server that is ending, or starts anew, is asked again."""
    end_s = time.monotonic() + 300
    while time.monotonic() < end_s:
        target = supervised.target
        with suppress(httpx.HTTPError):
            if target is not None and ready(target):
                return everything(target)
        time.sleep(0.2)
    raise AssertionError("no server was ready within 300 s of the last kill")


def test_kills_lose_nothing(tmp_path, start):
    supervised = Supervised(start, tmp_path)
    writes = Writes(supervised)
    kills = []
    try:
        seconds_until(lambda: supervised.target is not None, 300)
        threads = [threading.Thread(target=writes.write, args=(i,)) for i in range(WRITERS)]
        for thread in threads:
            thread.start()
        rng = random.Random(1)
        names = [*MARKS, "main"]
        while len(kills) < KILLS:
            time.sleep(rng.uniform(1, 4))
            target = supervised.target
            name = names[len(kills) % len(names)] if IS_LONG else ("store", "scheduler", "main")[len(kills)]
            victim = target and (target.process.process if name == "main" else part(target, name))
            if victim:
                with suppress(psutil.NoSuchProcess):
                    victim.kill()
                    kills.append(name)
        for thread in threads:
            thread.join()
        found = everything_once_up(supervised)
    finally:
        supervised.stop()
    names = [edit["external_id"] for edit in found]
    lost = [name for edit_id, name in writes.added.items() if edit_id not in {e["id"] for e in found}]
    statuses = {edit["id"]: edit["status"] for edit in found}
    wrong = [e for e in writes.retired if statuses[e] != "retired"]
    wrong += [e for e in writes.added if e not in writes.asked_to_retire and statuses[e] != "ready"]
    doubled = len(names) - len(set(names))
    figures = {"kills": len(kills), "starts": supervised.starts, "lost": len(lost), "doubled": doubled}
    figures |= {"acknowledged": len(writes.added) + len(writes.retired), "wrong": len(wrong)}
    note(attack="kills", **figures, chats=writes.chats, stale=len(writes.stale))
    assert (lost, doubled, wrong, writes.stale) == ([], 0, [], [])
    assert len(writes.added) == WRITES // WRITERS * WRITERS
