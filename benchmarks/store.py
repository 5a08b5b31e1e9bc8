"""`python -m benchmarks.store`: adds per second of the edit store beside raw commits of the same database, in one run.

raw: the plain driver; one row a commit, as a queue would keep its items; and the same rows as the store's, in batches
ours: `EditStoreActor` in this process, thus with request ids, log, audit and group commit, without Ray and HTTP

Every round measures all of them in turn on a fresh database; what is reported is the median of the rounds. Writes
store.json and store.md. PostgreSQL is a private one of its own, synced, on a unix socket.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
from incomes_server.edits import NewEdit
from incomes_server.store import commands
from incomes_server.store.actor import EditStoreActor
from sqlalchemy import make_url

from incomes_plugin.lab.provenance import provenance
from tests.postgres import serve_postgres

RESULTS = Path(__file__).parent / "results"
DATABASES = ("sqlite", "postgresql")
TEXT = "The warranty of the pump Z{} of the northern plant is {} months from the day of its delivery."
TOKENS = tuple(range(1000, 1024))
TABLE = "CREATE TABLE raw (id TEXT PRIMARY KEY, text TEXT NOT NULL, tokens {blob} NOT NULL, metadata TEXT NOT NULL)"
RATIOS = (
    ("single_one_caller", "raw_single"),
    ("single_many_callers", "raw_single"),
    ("bulk", "raw_single"),
    ("bulk", "raw_bulk"),
)
PRAGMAS = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL")


@dataclass(frozen=True)
class Work:
    """How much is written in one round.

    Attributes:
        singles: adds of one edit.
        callers: that send them at once.
        bulk: edits added in batches of `batch`.
    """

    singles: int = 1000
    callers: int = 64
    bulk: int = 20_000
    batch: int = 256
    rounds: int = 5


QUICK = Work(singles=40, callers=8, bulk=200, batch=50, rounds=1)


def edits(number: int) -> list[NewEdit]:
    """Edits of a length that is usual."""
    return [NewEdit(TEXT.format(i, i % 60), TOKENS, metadata={"source": "bench"}) for i in range(number)]


@contextmanager
def raw_connection(url: str) -> Iterator[tuple[Any, str]]:
    """The plain driver's connection, synced as the store's is, and its placeholder."""
    parsed = make_url(url)
    if parsed.drivername == "sqlite":
        lite = sqlite3.connect(f"{parsed.database}.raw")
        for pragma in PRAGMAS:
            lite.execute(pragma)
        lite.execute(TABLE.format(blob="BLOB"))
        yield lite, "?"
        lite.close()
        return
    with psycopg.connect(
        dbname=parsed.database, user=parsed.username, host=str(parsed.query["host"]), autocommit=False
    ) as conn:
        conn.execute(TABLE.format(blob="BYTEA"))
        conn.commit()
        yield conn, "%s"


def raw_rate(raw: tuple[Any, str], number: int, batch: int) -> float:
    """Rows per second, so many in a commit."""
    conn, mark = raw
    rows = [
        (f"edit_{secrets.token_hex(12)}", edit.text, bytes(4 * len(edit.token_ids)), json.dumps(edit.metadata))
        for edit in edits(number)
    ]
    statement = f"INSERT INTO raw VALUES ({', '.join([mark] * 4)})"
    cursor, start_s = conn.cursor(), time.perf_counter()
    for start in range(0, number, batch):
        cursor.executemany(statement, rows[start : start + batch])
        conn.commit()
    return number / (time.perf_counter() - start_s)


async def store_rates(url: str, work: Work) -> dict[str, float]:
    """Edits per second through the store's actor."""
    actor = EditStoreActor(url)
    await actor.write(commands.EnsureEditSet("p", "default"))

    async def add(some: Sequence[NewEdit]) -> None:
        await actor.write(commands.AddEdits("p", secrets.token_hex(8), "default", tuple(some)))

    async def timed(parts: Sequence[Sequence[NewEdit]], callers: int) -> float:
        waiting = iter(parts)

        async def caller() -> None:
            for part in waiting:
                await add(part)

        start_s = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        return sum(map(len, parts)) / (time.perf_counter() - start_s)

    singles, many = edits(work.singles), edits(work.bulk)
    batches = [many[start : start + work.batch] for start in range(0, len(many), work.batch)]
    try:
        return {
            "single_one_caller": await timed([[edit] for edit in singles[: work.singles // 4]], 1),
            "single_many_callers": await timed([[edit] for edit in singles], work.callers),
            "bulk": await timed(batches, 2),
        }
    finally:
        await asyncio.to_thread(actor._store.close)


def measure_round(url: str, work: Work) -> dict[str, float]:
    """One round on one fresh database."""
    with raw_connection(url) as raw:
        found = {"raw_single": raw_rate(raw, work.singles, 1), "raw_bulk": raw_rate(raw, work.bulk, work.batch)}
    return found | asyncio.run(store_rates(url, work))


def measure(work: Work, progress: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """Medians of all rounds, and their ratios, by database."""
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in DATABASES}
    with serve_postgres() as cluster:
        for number in range(work.rounds):
            for name in DATABASES:
                with ExitStack() as opened:
                    folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="incomes-bench-"))
                    is_sqlite = name == "sqlite"
                    url = f"sqlite:///{folder}/edits.db" if is_sqlite else opened.enter_context(cluster.database())
                    rounds[name].append(measure_round(url, work))
                progress(f"round {number + 1} of {work.rounds}, {name}")
    return {name: with_ratios(found) for name, found in rounds.items()}


def with_ratios(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Rates in edits or rows a second, and ratios to what the plain driver does with commits of the same size."""
    rate = {key: round(statistics.median(each[key] for each in rounds), 1) for key in rounds[0]}
    for name, raw in RATIOS:
        rate[f"{name}_to_{raw}"] = round(statistics.median(each[name] / each[raw] for each in rounds), 3)
    return rate


def markdown(result: dict[str, Any]) -> str:
    """The results as a table."""
    found: dict[str, dict[str, float]] = result["databases"]
    lines = ["| a second | " + " | ".join(found) + " |", "|---" * (1 + len(found)) + "|"]
    for key in next(iter(found.values())):
        lines.append(f"| `{key}` | " + " | ".join(f"{found[name][key]:,}" for name in found) + " |")
    return "\n".join(lines) + "\n"


def say(line: str) -> None:
    """Progress goes where it does not mix with the table."""
    sys.stderr.write(f"{line}\n")


def main(argv: Sequence[str]) -> int:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: proves the harness, not the speed")
    parser.add_argument("--rounds", type=int, help="default: 5, of a quick run 1")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results; a quick run writes only where told")
    args = parser.parse_args(argv)
    work = QUICK if args.quick else Work()
    work = work if args.rounds is None else replace(work, rounds=args.rounds)
    result: dict[str, Any] = provenance(f"python -m benchmarks.store {' '.join(argv)}".strip()) | {"work": asdict(work)}
    result["databases"] = measure(work, say)
    out = args.out or (None if args.quick else RESULTS)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "store.json").write_text(json.dumps(result, indent=2) + "\n")
        (out / "store.md").write_text(markdown(result))
    sys.stdout.write(markdown(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
