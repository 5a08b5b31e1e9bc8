"""`python -m benchmarks.cluster --out FILE [SCENARIO…]`: several engines on three Ray nodes, and what happens to them.

Everything runs on one machine: a tiny model, PostgreSQL and Ray on loopback. Ratios and counts of errors say something,
seconds are of a machine whose few cores all processes share. Results of the scenarios named replace those in FILE.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.cluster_costs import activation, bulk, pollers
from benchmarks.cluster_load import QUESTION
from benchmarks.cluster_stage import Stage, judged, seconds_until, staged
from incomes_plugin.lab.provenance import provenance
from tests.fleet import TENANTS, client_of

HEAD_PARTS = ("log_monitor", "runtime_env/agent", "dashboard/agent", "monitor.py")


def kills(
    folder: Path,
    *,
    seconds: float,
    engines: int = 3,
    compressors: int = 2,
    chatters: int = 32,
    adds_per_s: float = 20.0,
    victims: Sequence[str] | None = None,
) -> dict[str, Any]:
    """An engine, a compressor, the store, the scheduler and Ray's lesser processes are killed in turn under load.

    Args:
        victims: only these; default: all.
    """
    with staged(folder, engines, compressors) as stage:
        load, started_s, back = stage.load(chatters, adds_per_s), time.monotonic(), []
        load.start()
        places: list[tuple[str, Callable[[], psutil.Process | None]]] = [
            ("engine", lambda: stage.engines[-1].process),
            ("compressor", lambda: stage.compressors[0].process),
            ("store actor", lambda: first(stage.fleet.ray.parts("ray::EditStoreActor"))),
            ("scheduler actor", lambda: first(stage.fleet.ray.parts("ray::SchedulerActor"))),
            *((f"head: {part}", lambda part=part: first(stage.fleet.ray.parts(part))) for part in HEAD_PARTS),
        ]
        for name, find in places:
            if (victims is not None and name not in victims) or (victim := find()) is None:
                continue
            before = stage.starts
            victim.kill()
            killed_s = time.monotonic()
            if name in ("engine", "compressor"):  # its loss is noticed late: it is back when it was started anew
                seconds_until(lambda before=before: stage.starts > before)  # type: ignore[misc]
            time.sleep(1.0)
            stage.await_engines(engines)
            seconds_until(lambda: all(member.process for member in stage.compressors))
            back.append({"killed": name, "full_strength_after_s": round(time.monotonic() - killed_s, 1)})
        while time.monotonic() - started_s < seconds:
            time.sleep(0.5)
        stage.await_engines(engines)
        figures = {"engines": engines, "compressors": compressors, "kills": back}
        figures |= {"engine_starts": sum(member.starts for member in stage.engines)}
        return figures | judged(stage, load, started_s)


def first(found: Sequence[psutil.Process]) -> psutil.Process | None:
    """The first, if there is one."""
    return found[0] if found else None


def scale(folder: Path, *, engines: int = 3, chatters: int = 6) -> dict[str, Any]:
    """From one engine to three under load, while a label is promoted again and again."""
    with staged(folder, 1) as stage:
        load, started_s = stage.load(chatters, 3.0), time.monotonic()
        load.start()
        seconds_until(lambda: len(load.figures.adds) > 20)
        starts, moves, behind = [], 0, []
        for number in range(2, engines + 1):
            stage.add_engine()
            begun_s = time.monotonic()
            while len(stage.front.ready) < number:
                moves += 1
                behind += promote(stage)
            starts.append(round(time.monotonic() - begun_s, 1))
        for _ in range(10):
            moves += 1
            behind += promote(stage)
        return {
            "engines": engines,
            "seconds_to_ready": starts,
            "label_moves": moves,
            "answers_behind_the_label": len(behind),
            **judged(stage, load, started_s),
        }


def promote(stage: Stage) -> list[str]:
    """Move a label to the newest state; what each ready engine then answers by it, if that is older."""
    with stage.client() as client:
        moved = client.put("/v1/edit_sets/default/labels/production", json={"to": "head"}, params={"timeout_s": 60})
    if moved.status_code != 200 or moved.json().get("reached") != "active":
        return []
    found = []
    for server in list(stage.front.ready):
        with client_of(server.chat_url, TENANTS[0]) as client:
            answer = client.post("/v1/chat/completions", json={**QUESTION, "edits": {"label": "production"}})
            if answer.status_code == 200 and int(answer.headers["x-incomes-version"]) < moved.json()["version"]:
                found.append(f"{answer.headers['x-incomes-version']} < {moved.json()['version']}")
    return found


def rolling(folder: Path, *, engines: int = 3, chatters: int = 6) -> dict[str, Any]:
    """Every engine is replaced, one after the other; no request may fail."""
    with staged(folder, engines) as stage:
        load, started_s = stage.load(chatters, 2.0), time.monotonic()
        load.start()
        for member in stage.engines:
            before = member.starts
            member.replace()
            seconds_until(lambda member=member, before=before: member.starts > before)  # type: ignore[misc]
            stage.await_engines(engines)
        return {"engines": engines, "replaced": engines, **judged(stage, load, started_s)}


def database(folder: Path, *, stopped_s: float = 20.0, engines: int = 2, chatters: int = 4) -> dict[str, Any]:
    """PostgreSQL is away for a while, under load."""
    with staged(folder, engines) as stage:
        load, started_s = stage.load(chatters, 2.0), time.monotonic()
        load.start()
        seconds_until(lambda: len(load.figures.adds) > 5)
        stage.database.stop()
        time.sleep(stopped_s)
        before = len(load.figures.adds)
        stage.database.start()
        back_s = seconds_until(lambda: len(load.figures.adds) > before + 2)
        strong_s = stage.await_engines(engines)
        figures = {"stopped_s": stopped_s, "writes_again_after_s": round(back_s, 1)}
        return figures | {"all_ready_after_s": round(back_s + strong_s, 1), **judged(stage, load, started_s)}


def storage(folder: Path, *, failing_s: float = 15.0, engines: int = 2, chatters: int = 4) -> dict[str, Any]:
    """The object storage of the gists fails for a while, under load; then it is back."""
    gists, away = folder / "gists", folder / "away"
    gists.mkdir()
    with staged(folder, engines, gist_storage=gists.as_uri()) as stage:
        load, started_s = stage.load(chatters, 2.0), time.monotonic()
        load.start()
        seconds_until(lambda: len(load.figures.adds) > 5)
        gists.rename(away)
        gists.touch()  # a file where the folder was
        chats, adds = load.figures.chats, len(load.figures.adds)
        time.sleep(failing_s)
        meanwhile = {"chats": load.figures.chats - chats, "adds": len(load.figures.adds) - adds}
        gists.unlink()
        away.rename(gists)
        before = len(load.figures.adds)
        back_s = seconds_until(lambda: len(load.figures.adds) > before + 2)
        found = judged(stage, load, started_s)
        objects = sum(path.is_file() for path in gists.rglob("*"))
        figures = {"failing_s": failing_s, "meanwhile": meanwhile, "writes_again_after_s": round(back_s, 1)}
        return figures | {"objects": objects, **found}


SCENARIOS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "kills": lambda folder: kills(folder, seconds=60),
    "scale": scale,
    "rolling": rolling,
    "database": database,
    "storage": storage,
    "activation": activation,
    "bulk": bulk,
    "pollers": pollers,
}


def main(argv: list[str]) -> int:
    """Run the scenarios, write the results file; status 1 when a promise does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("scenarios", nargs="*", help=f"of {', '.join(SCENARIOS)}; default: all")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    before = json.loads(args.out.read_text()) if args.out.exists() else {}
    results = before.get("scenarios", {})
    for name in args.scenarios or SCENARIOS:
        with tempfile.TemporaryDirectory(prefix="incomes-cluster-") as folder:
            results[name] = provenance(f"python -m benchmarks.cluster {name}") | SCENARIOS[name](Path(folder))
        sys.stdout.write(json.dumps({name: results[name]}, indent=2) + "\n")
        whole = provenance(f"python -m benchmarks.cluster {' '.join(argv)}") | {"scenarios": results}
        args.out.write_text(json.dumps(whole, indent=2) + "\n")
    broken = ("lost", "stale_after_active", "wrong_tenant_or_answer", "answers_behind_the_label")
    return int(any(result.get(name) for result in results.values() for name in broken))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
