"""A verbatim edit gets vectors that the real engine says; a kill loses no text, and another model no vectors."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from incomes_server.cli.server_process import server_process

from tests.e2e.conftest import VLLM_FLAGS, Running, adapter_of, add
from tests.eventually import eventually_sync
from tests.tiny_model import write_tiny_model

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray]

TEXT, OTHER = "valve 7", "valve 9"


def state_of(admin: httpx.Client, edit_id: str) -> dict[str, Any]:
    return dict(admin.get(f"/v1/edits/{edit_id}").json()["verbatim"])


def said(admin: httpx.Client, edit_id: str) -> tuple[str, str, str | None]:
    found = admin.post(f"/v1/edits/{edit_id}/recall").json()
    return found["text"], found["source"], found["reason"]


def chatted(running: Running) -> tuple[str, str, str | None]:
    """The same of a chat's answer."""
    with running.raw_chat() as client:
        body = {"model": "incomes", "messages": [{"role": "user", "content": "What does the valve say?"}]}
        answer = client.post("/v1/chat/completions", json=body | {"max_tokens": 50}).raise_for_status().json()
    how = answer["edits"]["verbatim"]
    return answer["choices"][0]["message"]["content"], how["source"], how.get("reason")


def flip_a_bit(database: Path) -> None:
    """In the last byte of every record of vectors."""
    with closing(sqlite3.connect(database, timeout=60)) as store:
        rows = store.execute("SELECT edit_id, record FROM verbatims WHERE record IS NOT NULL").fetchall()
        assert rows
        for edit, record in rows:
            flipped = record[:-1] + bytes([record[-1] ^ 1])
            store.execute("UPDATE verbatims SET record = ? WHERE edit_id = ?", (flipped, edit))
        store.commit()


def becomes(admin: httpx.Client, edit_id: str, state: str) -> None:
    eventually_sync(lambda: state_of(admin, edit_id)["state"] == state, within_s=300)


def test_vectors_are_made_said_lost_and_made_again(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INCOMES_VERBATIM_VECTORS", "true")
    args = [*adapter_of(tiny_model), "--", *VLLM_FLAGS]
    with server_process(tmp_path, lambda _: None, model=str(tiny_model), args=args) as process:
        running = Running(process, tmp_path)
        with running.admin() as admin:
            edit = add(admin, "default", TEXT, kind="verbatim", title="Valve")["id"]
            assert said(admin, edit)[0] == TEXT, "right before there are vectors"
            becomes(admin, edit, "verified")
            assert said(admin, edit) == (TEXT, "vectors", None)
            assert chatted(running) == (TEXT, "vectors", None)
            flip_a_bit(next(tmp_path.rglob("*.db")))
            assert chatted(running) == (TEXT, "stored_text", "verbatim_damaged")
            metrics = httpx.get(process.chat_url + "/metrics").text
            assert 'incomes:verbatim_answers_total{reason="verbatim_damaged",source="stored_text"} 1.0' in metrics
            eventually_sync(lambda: chatted(running)[1] == "vectors", within_s=300)
            other = add(admin, "default", OTHER, kind="verbatim", title="Another valve")["id"]
            eventually_sync(lambda: state_of(admin, other)["state"] != "planning")
        killed = [psutil.Process(process.process.pid), *psutil.Process(process.process.pid).children(recursive=True)]
        for each in killed:
            each.kill()
        psutil.wait_procs(killed, timeout=30)

    model = write_tiny_model(tmp_path / "another", seed=1)
    args = [*adapter_of(model), "--", *VLLM_FLAGS]
    with (
        server_process(tmp_path, lambda _: None, model=str(model), args=args) as process,
        Running(process, tmp_path).admin() as admin,
    ):
        assert said(admin, edit)[0] == TEXT
        for each, text in ((edit, TEXT), (other, OTHER)):
            becomes(admin, each, "verified")
            assert said(admin, each) == (text, "vectors", None)
        assert f"{TEXT}\n" not in process.log.read_text()
