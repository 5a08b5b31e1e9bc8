"""Attacks on a served product: short ones with the other tests, long ones by `make attack` (`ATTACK=long`).

Each attack starts `incomes serve` on the tiny model, does what a careless or hostile caller or operator does, and
checks that nothing leaks, nothing hangs and nothing is lost.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from incomes_server.cli.server_process import ServerProcess, server_process

from tests.e2e.conftest import VLLM_FLAGS, adapter_of
from tests.tiny_model import write_tiny_model

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

IS_LONG = os.environ.get("ATTACK") == "long"
FIGURES = os.environ.get("ATTACK_FIGURES")
"""File that gets what was measured, one JSON object a line; unset: nothing is written."""

CHAT = {"model": "incomes", "messages": [{"role": "user", "content": "How long is the warranty?"}], "max_tokens": 4}


@dataclass(frozen=True)
class Target:
    """A running server, its files, and one key a tenant."""

    process: ServerProcess
    folder: Path
    keys: dict[str, str]

    def admin(self, tenant: str = "acme") -> httpx.Client:
        return self._client(self.process.admin_url, tenant)

    def chat(self, tenant: str = "acme") -> httpx.Client:
        return self._client(self.process.chat_url, tenant)

    def metric(self, name: str) -> float:
        """A metric without labels, as the admin port says it now."""
        text = httpx.get(self.process.admin_url + "/metrics", timeout=30).text
        (line,) = [line for line in text.splitlines() if line.startswith(f"incomes:{name} ")]
        return float(line.split()[1])

    def pinned(self, tenant: str = "acme") -> int:
        with self.chat(tenant) as client:
            return int(client.get("/plugins/incomes/status").json()["pinned_requests"])

    def _client(self, url: str, tenant: str) -> httpx.Client:
        return httpx.Client(base_url=url, headers={"authorization": f"Bearer {self.keys[tenant]}"}, timeout=60)


def keys_of(tenants: list[str]) -> tuple[dict[str, str], list[str]]:
    """Keys of tenants, and the flags that make them known."""
    keys = {tenant: f"{tenant}-secret" for tenant in tenants}
    return keys, [part for tenant, key in keys.items() for part in ("--api-key", f"{tenant}:{key}")]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def start(tiny_model: Path) -> Any:
    """Starts a server in a folder: `with start(folder, tenants, flags) as target`; the flags are vLLM's, `store` is the
    URL of its edit store, unless that is a file in the folder."""
    from contextlib import contextmanager

    @contextmanager
    def started(
        folder: Path,
        tenants: tuple[str, ...] = ("acme", "zen"),
        flags: tuple[str, ...] = (),
        store: str | None = None,
    ) -> Iterator[Target]:
        keys, key_flags = keys_of(list(tenants))
        store_flags = () if store is None else ("--edit-store", store)
        args = [*adapter_of(tiny_model), *key_flags, *store_flags, "--", *VLLM_FLAGS, *flags]
        with server_process(folder, lambda _: None, model=str(tiny_model), args=args) as process:
            yield Target(process, folder, keys)

    return started


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory, start: Any) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("target")
    with start(folder) as running:
        yield running


def check_refusal(answer: httpx.Response) -> None:
    """Not a defect: below 500 or a typed 503, always OpenAI's envelope and an id."""
    assert answer.headers.get("x-request-id"), (answer.status_code, answer.text[:300])
    assert answer.status_code != 500, answer.text[:500]
    if answer.status_code >= 400:
        error = answer.json()["error"]
        assert {"message", "type", "code"} <= error.keys(), answer.text[:300]


def note(**figures: Any) -> None:
    """Keep what was measured."""
    if FIGURES:
        with Path(FIGURES).open("a") as file:
            file.write(json.dumps(figures) + "\n")
