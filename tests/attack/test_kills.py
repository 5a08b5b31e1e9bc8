"""10,000 acknowledged writes across 20 kills of every process, the database's too: nothing lost, nothing twice."""

import random
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import httpx
import psutil
import pytest
from incomes_server.store.check import problems
from incomes_server.store.core import EditStore
from incomes_server.store.schema import label_moves
from sqlalchemy import select

from incomes_plugin.errors import NotReady
from tests.attack.conftest import CHAT, IS_LONG, note
from tests.attack.parts import part, ready, seconds_until
from tests.postgres import serve_postgres

pytestmark = [pytest.mark.attack, pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray, pytest.mark.timeout(7200)]

WRITES, WRITERS = (10_000, 16) if IS_LONG else (48, 8)
KILLS = 20 if IS_LONG else 3
CHAT_EVERY = 20 if IS_LONG else 2
VICTIMS = {
    "sqlite": ("store", "main", "scheduler", "engine", "raylet", "gcs"),
    "postgresql": ("database", "main", "store", "engine", "database", "scheduler", "raylet", "gcs"),
}
SHORT = {"sqlite": ("store", "scheduler", "main"), "postgresql": ("database", "store", "database")}
LABEL = "/v1/edit_sets/default/labels/production"


class Supervised:
    """A server that is started anew when it ends, as systemd would."""

    def __init__(self, start, folder, store):
        self._start, self._folder, self._store = start, folder, store
        self.target = None
        self.starts = 0
        self.done = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self.done:
            with suppress(NotReady), self._start(self._folder, store=self._store) as target:
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
        self.labelled = []
        self.stale, self.chats = [], 0
        self.done = False
        self._lock = threading.Lock()
        self._clients = threading.local()

    @property
    def acknowledged(self):
        return len(self.added) + len(self.retired)

    def write(self, number):
        for i in range(WRITES // WRITERS):
            name = f"w{number}-{i}"
            body = {"text": f"Fact {name}.", "external_id": name}
            edit = self._until_done("POST", "/v1/edits", body, {"wait": "active", "timeout_s": 30}, 201)
            with self._lock:
                self.added[edit["id"]] = name
            if i % 5 == 2:
                with self._lock:
                    self.asked_to_retire.add(edit["id"])
                self._until_done("POST", f"/v1/edits/{edit['id']}/retire", None, {"timeout_s": 30}, 200)
                with self._lock:
                    self.retired.add(edit["id"])
            if i % CHAT_EVERY == 0:
                self._chat()
        self._close()

    def move_labels(self):
        """One after the other; the version that the label points at after each."""
        while not self.done:
            moved = self._until_done("PUT", LABEL, {"to": "head"}, {}, 200)
            self.labelled.append(moved["version"])
            time.sleep(0.2)
        self._close()

    def _client(self, target):
        if getattr(self._clients, "target", None) is not target:
            self._close()
            self._clients.target, self._clients.admin = target, target.admin()
        return self._clients.admin

    def _close(self):
        if getattr(self._clients, "target", None) is not None:
            self._clients.admin.close()
            self._clients.target = None

    def _until_done(self, method, path, body, params, status):
        key = str(uuid.uuid4())
        while True:
            target = self.supervised.target
            if target is not None:
                with suppress(httpx.HTTPError):
                    answer = self._client(target).request(
                        method, path, json=body, params=params, headers={"idempotency-key": key}
                    )
                    if answer.status_code == status:
                        return answer.json()
                    assert answer.status_code in (200, 202, 404, 503), answer.text
                    assert answer.status_code != 404 or path == LABEL, answer.text  # no edit yet, so no edit set
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


def kill(name, supervised, cluster):
    """Whether there was something to kill."""
    if name == "database":
        cluster.kill()
        time.sleep(0.5)
        cluster.start()
        return True
    target = supervised.target
    victim = target and (target.process.process if name == "main" else part(target, name))
    if not victim:
        return False
    with suppress(psutil.NoSuchProcess):
        victim.kill()
        return True
    return False


def kill_along(writes, writers, supervised, cluster, victims):
    """Kills, evenly over the writes; the next one when the writes have come so far, or go no further for a minute."""
    kills, rng = [], random.Random(1)
    while len(kills) < KILLS:
        due, late_s = (len(kills) + 0.5) / KILLS * WRITES * 1.2, time.monotonic() + 60
        while writes.acknowledged < due and time.monotonic() < late_s and not all(w.done() for w in writers):
            time.sleep(0.05)
        name = victims[len(kills) % len(victims)]
        if kill(name, supervised, cluster):
            kills.append(name)
        time.sleep(rng.uniform(0.5, 2))
    return kills


@pytest.mark.parametrize("database", VICTIMS)
def test_kills_lose_nothing(tmp_path, start, database):
    with ExitStack() as opened:
        cluster, store = None, f"sqlite:///{tmp_path}/edits.db"
        if database == "postgresql":
            cluster = opened.enter_context(serve_postgres())
            store = opened.enter_context(cluster.database())
        start_s = time.monotonic()
        supervised = Supervised(start, tmp_path, store)
        writes = Writes(supervised)
        try:
            seconds_until(lambda: supervised.target is not None, 300)
            with ThreadPoolExecutor(WRITERS + 1) as pool:
                writers = [pool.submit(writes.write, i) for i in range(WRITERS)]
                mover = pool.submit(writes.move_labels)
                victims = (VICTIMS if IS_LONG else SHORT)[database]
                kills = kill_along(writes, writers, supervised, cluster, victims)
                for writer in writers:
                    writer.result()
                writes.done = True
                mover.result()
            found = everything_once_up(supervised)
        finally:
            writes.done = True
            supervised.stop()
        check(writes, found, store)
        figures = {"kills": len(kills), "victims": kills, "starts": supervised.starts, "chats": writes.chats}
        figures |= {"acknowledged": writes.acknowledged, "label_moves": len(writes.labelled), "lost": 0, "doubled": 0}
        note(attack="kills", database=database, **figures, seconds=round(time.monotonic() - start_s))


def check(writes, found, store):
    names = [edit["external_id"] for edit in found]
    statuses = {edit["id"]: edit["status"] for edit in found}
    assert writes.added.keys() <= statuses.keys(), "lost"
    assert len(names) == len(set(names)) == len(writes.added) == WRITES // WRITERS * WRITERS, "twice"
    wrong = [e for e in writes.retired if statuses[e] != "retired"]
    wrong += [e for e in writes.added if e not in writes.asked_to_retire and statuses[e] != "ready"]
    assert (wrong, writes.stale) == ([], [])
    opened = EditStore(store)
    try:
        assert opened.read(problems) == [], "versions are dense and follow from the log"
        moves = opened.read(lambda conn: conn.execute(select(label_moves).order_by(label_moves.c.move)).all())
    finally:
        opened.close()
    assert [row.move for row in moves] == list(range(1, len(moves) + 1)), "a move is lost or twice"
    assert writes.labelled == sorted(writes.labelled)
    assert moves[-1].version == writes.labelled[-1]
    assert {row.version for row in moves} == set(writes.labelled)
