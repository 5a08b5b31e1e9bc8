"""The commands for keys, projects and the audit log, against a running admin API."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest
from incomes_server.settings import Settings

from tests.eventually import eventually
from tests.server.local import local_server, over_http
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model"))


async def test_keys_and_audit_by_command(database_url, model, tmp_path):
    settings = Settings(api_keys=("ops:k-ops",))
    async with local_server(database_url, model, settings) as server, over_http(server.app) as url:

        async def incomes(*args, key="k-ops"):
            environment = {**os.environ, "INCOMES_ADMIN_URL": url, "INCOMES_API_KEY": key}
            command = [sys.executable, "-m", "incomes_server.cli", *args]
            how = {"capture_output": True, "text": True, "env": environment, "check": False}
            return await asyncio.to_thread(subprocess.run, command, **how)

        async def refused_with(key):
            return (await incomes("key", "list", key=key)).returncode == 1

        assert (await incomes("project", "create", "acme")).returncode == 0
        made = await incomes("key", "create", "bot", "--project", "acme", "--scope", "admin")
        secret = made.stdout.strip()
        assert "shown this once" in made.stderr
        assert (await incomes("edit-set", "create", "kb", key=secret)).returncode == 0
        wrong = await incomes("key", "create", "bot", "--scope", "everything")
        assert (wrong.returncode, "scopes" in wrong.stderr) == (2, True)
        refused = await incomes("project", "create", "mine", key=secret)
        assert (refused.returncode, "operator" in refused.stderr) == (1, True)
        listed = json.loads((await incomes("key", "list", "--json", key=secret)).stdout)
        new = (await incomes("key", "rotate", listed[0]["id"], "--grace-s", "0", key=secret)).stdout.strip()
        await eventually(lambda: refused_with(secret))  # the old one has ended
        limits = await incomes("project", "limit", "acme", "--max-edits", "7", "--json")
        assert json.loads(limits.stdout)["max_edits"] == 7

        log = tmp_path / "audit.jsonl"
        assert "4 events" in (await incomes("audit", "export", str(log), key=new)).stdout
        head = json.loads(log.read_text().splitlines()[-1])["hash"]
        for arguments in ([], [str(log)], [str(log), "--head", head]):
            assert "4 events, intact" in (await incomes("audit", "verify", *arguments, key=new)).stdout
        lines = log.read_text().splitlines()
        log.write_text("\n".join([*lines[:1], lines[1].replace("create_edit_set", "delete_edit_set"), *lines[2:]]))
        broken = await incomes("audit", "verify", str(log), key=new)
        assert (broken.returncode, "event 2" in broken.stderr, "was changed" in broken.stderr) == (1, True, True)
        log.write_text("\n".join(lines[:2]))
        cut = await incomes("audit", "verify", str(log), "--head", head, key=new)
        assert (cut.returncode, "was cut off" in cut.stderr) == (1, True)
        assert "create_edit_set" in (await incomes("audit", "list", key=new)).stdout
        newest = json.loads(lines[-2])["changes"][-1]["target"]
        assert "revoked" in (await incomes("key", "revoke", newest, key=new)).stdout
        await eventually(lambda: refused_with(new))
