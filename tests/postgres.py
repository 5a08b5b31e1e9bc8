"""A PostgreSQL of the tests' own: a private cluster on a unix socket, synced as in production, gone after the session.

`serve_postgres()` ──► Cluster ──► `database()`: a fresh one for each test, copied from a template with all tables
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from incomes_server.store.database import open_writer
from sqlalchemy import Engine, create_engine

USER = "incomes"
TEMPLATE = "incomes_template"
DURABLE = ("fsync=on", "synchronous_commit=on")
SETTINGS = (*DURABLE, "listen_addresses=", "shared_buffers=64MB", "max_connections=200", "deadlock_timeout=100ms")


def find_programs() -> Path | None:
    """Folder of the newest PostgreSQL's programs; Debian keeps them out of the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def need_programs() -> Path:
    """The programs; without them a test skips, in CI it fails."""
    found = find_programs()
    if found is None:
        reason = "no PostgreSQL: nothing is tested on it; run deploy/setup/postgres.sh as root"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@dataclass
class Cluster:
    """A running server; `kill` and `start` again lose what was not durable, and nothing else."""

    programs: Path
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    made: set[str] = field(default_factory=set)

    def url(self, name: str) -> str:
        """SQLAlchemy's URL of a database."""
        return f"postgresql+psycopg://{USER}@/{name}?host={self.folder}"

    def start(self) -> None:
        """Start it, after a kill too, and wait until it answers."""
        arguments = [part for setting in SETTINGS for part in ("-c", setting)]
        command: list[str | Path] = [self.programs / "postgres", "-D", self.folder / "data", "-k", self.folder]
        with (self.folder / "log").open("ab") as log:
            self.process = process = subprocess.Popen([*command, *arguments], stdout=log, stderr=log, **_unprivileged())
        ready: list[str | Path] = [self.programs / "pg_isready", "-q", "-h", self.folder, "-d", "postgres", "-U", USER]
        for _ in range(600):
            if subprocess.run(ready, check=False).returncode == 0:
                return
            assert process.poll() is None, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.1)
        raise AssertionError("PostgreSQL does not answer within a minute")

    def stop(self) -> None:
        """End it as an operator does: transactions are rolled back, connections closed."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)
            self.process = None

    def kill(self) -> None:
        """kill -9 of all its processes at once, as a machine that loses its power."""
        assert self.process is not None
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        for child in family:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(family, timeout=60)
        self.process.wait(60)
        self.process = None

    @contextmanager
    def database(self, *, empty: bool = False) -> Iterator[str]:
        """A fresh database with all tables, or without any. A connection to it that stays open is an error."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self._admin(f"CREATE DATABASE {name} TEMPLATE {'template0' if empty else self._template()}")
        yield self.url(name)
        number, last = self._connections(name)
        end_s = time.monotonic() + 5  # of a process that was just killed PostgreSQL has yet to learn
        while number and time.monotonic() < end_s:
            time.sleep(0.05)
            number, last = self._connections(name)
        self._admin(f"DROP DATABASE {name} WITH (FORCE)")
        assert number == 0, f"{number} connections to the test's database are still open; one last said {last}"

    def _connections(self, name: str) -> tuple[int, str]:
        found = self._admin(f"SELECT count(*), min(query) FROM pg_stat_activity WHERE datname = '{name}'")
        assert found is not None
        return int(str(found[0])), str(found[1])

    def _template(self) -> str:
        if TEMPLATE not in self.made:
            self._admin(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
            open_writer(self.url(TEMPLATE)).dispose()
            self.made.add(TEMPLATE)
        return TEMPLATE

    def _admin(self, statement: str) -> tuple[object, ...] | None:
        engine: Engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as conn:
                result = conn.exec_driver_sql(statement)
                return tuple(result.one()) if result.returns_rows else None
        finally:
            engine.dispose()


@contextmanager
def serve_postgres() -> Iterator[Cluster]:
    """A new cluster; its folder is short, because a socket's path is, and goes when it ends."""
    programs = need_programs()
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as name:
        cluster = Cluster(programs, Path(name))
        if os.geteuid() == 0:
            shutil.chown(name, _user().pw_uid, _user().pw_gid)
        command: list[str | Path] = [programs / "initdb", "-D", cluster.folder / "data", "-U", USER, "-A", "trust"]
        command += ["-E", "UTF8", "--locale=C.UTF-8"]
        made = subprocess.run(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, check=False, **_unprivileged()
        )
        assert made.returncode == 0, str(made.stderr)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()


def _user() -> pwd.struct_passwd:
    """PostgreSQL refuses to run as root: then it runs as its own user, or as nobody."""
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _unprivileged() -> dict[str, Any]:
    """How to start one of its programs: not as root, away from folders that only root may see."""
    if os.geteuid() != 0:
        return {"cwd": "/"}
    return {"cwd": "/", "user": _user().pw_uid, "group": _user().pw_gid, "extra_groups": []}
