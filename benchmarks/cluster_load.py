"""Chats and adds of two tenants on a fleet, each checked: nothing lost, nothing stale, nothing of another tenant.

Load ──► chat and add threads through a `Front` ──► Figures │ stale: an answer from an older version than one that was
acknowledged as active before the question was sent
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from tests.fleet import TENANTS, Front, client_of

STOP_WITHIN_S = 120.0
QUESTION = {"model": "incomes", "messages": [{"role": "user", "content": "How long is the warranty?"}], "max_tokens": 4}


@dataclass
class Figures:
    """What was seen."""

    chats: int = 0
    adds: dict[str, str] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    broken: int = 0
    wrong: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    applied: dict[str, set[str]] = field(default_factory=lambda: {tenant: set() for tenant in TENANTS})
    chat_s: list[float] = field(default_factory=list)
    active_s: list[float] = field(default_factory=list)


class Load:
    """Threads that chat and add until `stop`.

    Args:
        adds_per_s: over all of them; each add is repeated under its key until it is acknowledged as active.
        edit_sets: id of each tenant's default set.
    """

    def __init__(self, front: Front, chatters: int, adds_per_s: float, edit_sets: dict[str, str]) -> None:
        self.front = front
        self.figures = Figures()
        self.active = dict.fromkeys(TENANTS, 0)
        self._edit_sets = edit_sets
        self._lock = threading.Lock()
        self._done = threading.Event()
        adders = max(1, min(16, round(2 * adds_per_s)))
        self._threads = [
            *(self._thread(self._chat, TENANTS[i % 2]) for i in range(chatters)),
            *(self._thread(partial(self._add, every_s=adders / adds_per_s), TENANTS[i % 2]) for i in range(adders)),
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> Figures:
        """End; adds that have begun are carried out. Raises TimeoutError."""
        self._done.set()
        for thread in self._threads:
            thread.join(STOP_WITHIN_S)
            if thread.is_alive():
                raise TimeoutError("a write was not acknowledged as active")
        return self.figures

    def _thread(self, work: Callable[[str, dict[str, httpx.Client]], None], tenant: str) -> threading.Thread:
        def run() -> None:
            clients: dict[str, httpx.Client] = {}
            try:
                work(tenant, clients)
            finally:
                for client in clients.values():
                    client.close()

        return threading.Thread(target=run, daemon=True)

    def _chat(self, tenant: str, clients: dict[str, httpx.Client]) -> None:
        body = {**QUESTION, "return_edit_attributions": True}
        while not self._done.is_set():
            with self._lock:
                least = self.active[tenant]
            answer, seconds = self._send(clients, tenant, "POST", "/v1/chat/completions", body)
            if answer is None or answer.status_code != 200:
                self._done.wait(0.1)
                continue
            version, edit_set = int(answer.headers["x-incomes-version"]), answer.headers["x-incomes-edit-set"]
            with self._lock:
                self.figures.chats += 1
                self.figures.chat_s.append(seconds)
                self.figures.applied[tenant] |= {each["edit"] for each in answer.json()["edits"]["applied"]}
                if version < least:
                    self.figures.stale.append(f"{tenant}: version {version}, {least} was active before")
                if edit_set != self._edit_sets[tenant]:
                    self.figures.wrong.append(f"{tenant} was answered from {edit_set}")

    def _add(self, tenant: str, clients: dict[str, httpx.Client], *, every_s: float) -> None:
        while not self._done.is_set():
            begun_s, name = time.monotonic(), str(uuid.uuid4())
            body = {"text": f"The code of {tenant} {name[:8]} is {name[-6:]}.", "external_id": name}
            while True:
                answer, _ = self._send(
                    clients, tenant, "POST", "/v1/edits?wait=active&timeout_s=30", body, admin=True, key=name
                )
                if answer is not None and answer.status_code in (200, 201) and answer.json()["reached"] == "active":
                    break
                time.sleep(0.1)
            edit = answer.json()
            with self._lock:
                self.figures.adds[edit["id"]] = tenant
                self.figures.active_s.append(time.monotonic() - begun_s)
                self.active[tenant] = max(self.active[tenant], edit["set_version"])
            self._done.wait(max(0.0, every_s - (time.monotonic() - begun_s)))

    def _send(
        self,
        clients: dict[str, httpx.Client],
        tenant: str,
        method: str,
        path: str,
        body: dict[str, Any],
        *,
        admin: bool = False,
        key: str | None = None,
    ) -> tuple[httpx.Response | None, float]:
        """One request to whoever is ready; None: nobody was, or the connection broke."""
        server = self.front.pick()
        if server is None:  # what is in front of the engines says 503
            with self._lock:
                self.figures.refused["503, nobody is ready"] += 1
            return None, 0.0
        url = server.admin_url if admin else server.chat_url
        if url not in clients:
            clients[url] = client_of(url, tenant)
        client = clients[url]
        start_s = time.monotonic()
        try:
            answer = client.request(method, path, json=body, headers={"idempotency-key": key} if key else {})
        except httpx.HTTPError:
            with self._lock:
                self.figures.broken += 1
            clients.pop(url).close()
            return None, 0.0
        if answer.status_code >= 400:
            said = f"{answer.status_code} {answer.json()['error']['code']}"
            with self._lock:
                self.figures.refused[said] += 1
                if not (answer.status_code in (429, 503) and "retry-after" in answer.headers):
                    self.figures.wrong.append(f"{said} without Retry-After: {answer.text[:200]}")
        return answer, time.monotonic() - start_s
