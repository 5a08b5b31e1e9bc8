"""What more engines and workers cost or gain, each alone: time to active, bulk compression, idle pollers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.cluster_stage import seconds_until, spread, staged


def activation(folder: Path, *, counts: Sequence[int] = (1, 2, 4), adds: int = 60) -> dict[str, Any]:
    """Time from an add to `active` with more and more engines, one add at a time; ratios to one engine."""
    found: dict[str, Any] = {}
    with staged(folder, 1) as stage:
        for number in counts:
            while len(stage.engines) < number:
                stage.add_engine()
            stage.await_engines(number)
            seconds = []
            with stage.client() as client:
                for turn in range(adds + 5):
                    start_s = time.monotonic()
                    body = {"text": f"The count {number}-{turn} is {turn}."}
                    answer = client.post("/v1/edits?wait=active&timeout_s=60", json=body).raise_for_status()
                    assert answer.json()["reached"] == "active"
                    seconds.append(time.monotonic() - start_s)
            found[str(number)] = spread(seconds[5:])
        one = found[str(counts[0])]
        ratios = {n: {q: round(each[q] / one[q], 2) for q in ("p50_ms", "p95_ms")} for n, each in found.items()}
        return {"engines": found, "ratio_to_one": ratios}


def bulk(folder: Path, *, edits: int = 5000, most: int = 3) -> dict[str, Any]:
    """An import, compressed by one, two and three workers that do nothing else."""
    found: dict[str, Any] = {}
    with staged(folder, 1, 1, queue_limit=8192, pool_bytes="1GiB") as stage:
        for workers in range(1, most + 1):
            while len(stage.compressors) < workers:
                stage.add_compressor()
            seconds_until(lambda: all(member.running for member in stage.compressors))
            name = f"w{workers}"
            texts = [f"Item {workers}-{n} costs {n} crowns." for n in range(edits)]
            lines = [json.dumps({"custom_id": str(n), "text": text, "edit_set": name}) for n, text in enumerate(texts)]
            with stage.client() as client:
                client.post("/v1/edit_sets", json={"name": name}).raise_for_status()
                start_s = time.monotonic()
                answer = client.post(
                    "/v1/edits/import?wait=active&timeout_s=600", content="\n".join(lines).encode(), timeout=700
                ).raise_for_status()
                seconds = time.monotonic() - start_s
                assert answer.json()["request_counts"]["completed"] == edits, answer.text[:300]
                made = {each["id"]: each["made"] for each in client.get("/v1/workers").json()["data"]}
            took = {"seconds": round(seconds, 1), "edits_per_s": round(edits / seconds)}
            found[str(workers)] = {**took, "made_so_far": made}
    return {"edits": edits, "workers": found, "cores": psutil.cpu_count()}


POLLERS = """
import asyncio, sys
from incomes_server.boot.ray_local import prepare_ray_environment
address, token, number = sys.argv[1:]
prepare_ray_environment(address, token)
import ray
from incomes_server.store.client import StoreClient

async def follow(store, name):
    positions = {}
    while True:
        for delta in await store.poll(name, positions, timeout_s=2.0, serving=False):
            positions[delta.key] = delta.position

async def main():
    ray.init(address=address, namespace="incomes", log_to_driver=False, logging_level="error")
    store = await StoreClient.connect()
    print("up", flush=True)
    await asyncio.gather(*(follow(store, f"idle-{n}") for n in range(int(number))))

asyncio.run(main())
"""


def pollers(folder: Path, *, number: int = 100, seconds: float = 20.0) -> dict[str, Any]:
    """What engines that have nothing to do cost the store: its processor time with and without a hundred of them."""
    with staged(folder, 1) as stage:
        (store,) = stage.fleet.ray.parts("ray::EditStoreActor")

        def busy() -> float:
            before = sum(store.cpu_times()[:2])
            time.sleep(seconds)
            return (sum(store.cpu_times()[:2]) - before) / seconds

        alone = busy()
        where = [stage.fleet.ray.address, stage.fleet.ray.token, str(number)]
        process = subprocess.Popen([sys.executable, "-c", POLLERS, *where], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            time.sleep(5)
            crowded = busy()
            with stage.client() as client:
                seconds_to_active = []
                for turn in range(20):
                    start_s = time.monotonic()
                    client.post("/v1/edits?wait=active", json={"text": f"The turn {turn} is on."}).raise_for_status()
                    seconds_to_active.append(time.monotonic() - start_s)
        finally:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
        return {
            "pollers": number,
            "store_cores_without": round(alone, 4),
            "store_cores_with": round(crowded, 4),
            "cores_a_poller": round((crowded - alone) / number, 5),
            "write_to_active_with_them": spread(seconds_to_active),
        }
