"""Keys, rates and encryption of a whole server: scopes on both ports, a revoked key, the files, no master key."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from incomes_server.cli.server_process import free_port, server_process

from tests.e2e.conftest import VLLM_FLAGS, adapter_of
from tests.eventually import SOON_S, eventually_sync

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray]

MASTER = base64.b64encode(bytes(range(32))).decode()
TEXT = "The warranty of the Korvan pump is 36 months."
CHAT = {"model": "incomes", "messages": [{"role": "user", "content": "How long is the warranty?"}], "max_tokens": 2}


def client(url: str, key: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=60)


def ask(url: str, key: str) -> httpx.Response:
    with client(url, key) as asking:
        return asking.post("/v1/chat/completions", json=CHAT)


def incomes(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "incomes_server.cli", *args]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, **environment}
    )


def test_keys_rates_and_encryption(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INCOMES_ENCRYPTION_KEY", MASTER)
    args = [*adapter_of(tiny_model), "--api-key", "ops:k-ops", "--", *VLLM_FLAGS]
    with server_process(tmp_path, lambda _: None, model=str(tiny_model), args=args) as server:
        to_admin = {"INCOMES_ADMIN_URL": server.admin_url, "INCOMES_API_KEY": "k-ops"}
        assert incomes("project", "create", "acme", **to_admin).returncode == 0
        keys = {}
        for name, scope in (("chat", "chat"), ("writer", "edits:write"), ("admin", "admin")):
            made = incomes("key", "create", name, "--project", "acme", "--scope", scope, **to_admin)
            keys[name] = made.stdout.strip()
            assert keys[name].startswith("inc_"), made.stderr
        with client(server.admin_url, keys["writer"]) as writer:
            added = writer.post("/v1/edits", json={"text": TEXT}, params={"wait": "active", "timeout_s": 60})
            assert (added.status_code, writer.get("/v1/edits").status_code) == (201, 403), added.text
        assert ask(server.chat_url, keys["writer"]).status_code == 403
        answer = ask(server.chat_url, keys["chat"])
        assert (answer.status_code, answer.headers["x-incomes-edits"]) == (200, "1")
        assert ask(server.chat_url, "k-ops").headers["x-incomes-edits"] == "0"
        with client(server.admin_url, keys["admin"]) as admin:
            found = {item["name"]: item["id"] for item in admin.get("/v1/api_keys").json()["data"]}
            assert admin.delete(f"/v1/api_keys/{found['chat']}").status_code == 200
            revoked = time.monotonic()
            while ask(server.chat_url, keys["chat"]).status_code == 200:
                assert time.monotonic() - revoked < SOON_S
            assert ask(server.chat_url, keys["chat"]).json()["error"]["code"] == "invalid_api_key"
            with client(server.admin_url, keys["chat"]) as gone:
                assert gone.get("/v1/edits").status_code == 401
        verified = incomes("audit", "verify", INCOMES_ADMIN_URL=server.admin_url, INCOMES_API_KEY=keys["admin"])
        assert (verified.returncode, "intact" in verified.stdout) == (0, True), verified.stderr
        assert incomes("project", "limit", "acme", "--chat-requests-per-minute", "1", **to_admin).returncode == 0
        eventually_sync(lambda: ask(server.chat_url, keys["admin"]).status_code == 429)
        refused = ask(server.chat_url, keys["admin"])
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["x-ratelimit-limit-requests"] == "1"
    content = b"".join(file.read_bytes() for file in tmp_path.glob("edits.db*"))
    assert len(content) > 10_000
    assert TEXT.encode() not in content
    assert not [secret for secret in (*keys.values(), MASTER) if secret.encode() in content]
    ports = ("--port", str(free_port()), "--admin-port", str(free_port()))
    start = (
        "serve",
        str(tiny_model),
        *ports,
        "--edit-store",
        f"sqlite:///{tmp_path}/edits.db",
        *adapter_of(tiny_model),
    )
    for key in ("", base64.b64encode(bytes(32)).decode()):
        refused = incomes(*start, INCOMES_ENCRYPTION_KEY=key)
        assert refused.returncode == 3, refused.stderr
        lines = [line for line in refused.stderr.splitlines() if line.startswith("error:")]
        assert len(lines) == 1, refused.stderr
        assert "the edit store is encrypted" in lines[0]
        assert "Traceback" not in refused.stderr
