"""The product as users run it: `incomes serve` as a process, two projects, real HTTP.

`running` is a tiny random model, whose requests always pick edits: for the machinery. `real` is the default model with
the packaged adapter: for what a real model does with edits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from incomes_server.cli.server_process import ServerProcess, server_process

from tests.tiny_model import write_tiny_model

ACME, ZEN = "acme-secret-key", "zen-secret-key"
VLLM_FLAGS = ("--max-model-len", "512", "--dtype", "float32")
KEYS = ("--api-key", f"acme:{ACME}", "--api-key", f"zen:{ZEN}")
PROMPT = "How long is the warranty?"

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


OPEN: list[openai.OpenAI] = []
"""Clients that the running test has made."""


@pytest.fixture(autouse=True)
def no_client_stays_open() -> Iterator[None]:
    """A client collected later is a warning, which pytest counts as an error of whatever runs then."""
    yield
    while OPEN:
        OPEN.pop().close()


@dataclass(frozen=True)
class Running:
    """A server with both tenants' clients."""

    process: ServerProcess
    folder: Path

    def admin(self, key: str = ACME) -> httpx.Client:
        return httpx.Client(base_url=self.process.admin_url, headers={"authorization": f"Bearer {key}"}, timeout=120)

    def chat(self, key: str = ACME) -> openai.OpenAI:
        client = openai.OpenAI(base_url=self.process.chat_url + "/v1", api_key=key, max_retries=0, timeout=120)
        OPEN.append(client)
        return client

    def raw_chat(self, key: str = ACME) -> httpx.Client:
        return httpx.Client(base_url=self.process.chat_url, headers={"authorization": f"Bearer {key}"}, timeout=120)

    def log(self) -> str:
        return self.process.log.read_text(errors="replace")


def adapter_of(tiny_model: Path) -> tuple[str, str]:
    """The arguments that name a tiny model's adapter."""
    return "--adapter", str(tiny_model / "adapter")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("server")
    args = [*adapter_of(tiny_model), *KEYS, "--", *VLLM_FLAGS]
    with server_process(folder, lambda _: None, model=str(tiny_model), args=args) as process:
        yield Running(process, folder)


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("real-server")
    with server_process(folder, lambda _: None, args=KEYS) as process:
        yield Running(process, folder)


@pytest.fixture
def admin(running: Running) -> Iterator[httpx.Client]:
    with running.admin() as client:
        yield client


@pytest.fixture
def edit_set(admin: httpx.Client, request: pytest.FixtureRequest) -> str:
    """A fresh edit set of the project acme."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)[:60].strip("-")
    answer = admin.post("/v1/edit_sets", json={"name": name})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def add(admin: httpx.Client, edit_set: str, text: str, **body: Any) -> dict[str, Any]:
    """Add an edit and wait until it is active."""
    body = {"text": text, "edit_set": edit_set, **body}
    answer = admin.post("/v1/edits", json=body, params={"wait": "active", "timeout_s": 60})
    assert answer.status_code == 201, answer.text
    assert answer.json()["reached"] == "active"
    return answer.json()


def ask(
    client: openai.OpenAI, *, prompt: str = PROMPT, attributions: bool = True, max_tokens: int = 8, **edits: Any
) -> Any:
    """A greedy answer with token logprobs, headers and attribution: an openai raw response."""
    extra: dict[str, Any] = {"edits": edits} if edits else {}
    return client.chat.completions.with_raw_response.create(
        model="incomes",
        messages=[{"role": "user", "content": prompt}],
        temperature=0,
        max_tokens=max_tokens,
        logprobs=True,
        extra_body=extra | ({"return_edit_attributions": True} if attributions else {}),
    )


def logprobs(raw: Any) -> list[tuple[str, float]]:
    """Tokens and log-probabilities of an answer."""
    return [(token.token, token.logprob) for token in raw.parse().choices[0].logprobs.content]
