"""One address for several engines, by Ray Serve: replaced one after the other, killed, and no answer is wrong.

Needs `ray[serve]`, which the other tests do without.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from incomes_server.cli.server_process import free_port

from benchmarks.cluster_load import QUESTION
from tests.attack.parts import seconds_until
from tests.fleet import KEYS, TENANTS, VLLM_FLAGS, client_of
from tests.postgres import Cluster
from tests.ray_cluster import RayCluster, ray_cluster

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray, pytest.mark.timeout(1800)]
if importlib.util.find_spec("grpc_reflection") is None:
    pytest.skip("needs ray[serve]", allow_module_level=True)

DRIVER = """
import json, sys
from incomes_server.boot.ray_local import prepare_ray_environment
address, token, port, args = sys.argv[1:]
prepare_ray_environment(address, token)
import ray
from ray import serve
from incomes_server.boot.endpoint import build

ray.init(address=address, namespace="incomes", log_to_driver=False, logging_level="error")
serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
args = json.loads(args)
serve.run(build(args), route_prefix="/")
print("up", flush=True)
for line in sys.stdin:
    args["flags"] = [*args["flags"], *line.split()]  # other flags: Serve replaces every replica
    serve.run(build(args), route_prefix="/")
    print("up", flush=True)
serve.shutdown()
"""


@dataclass
class Endpoint:
    """A running endpoint, and the process that changes it."""

    url: str
    ray: RayCluster
    driver: subprocess.Popen[str]

    def replace_all(self, flags: str) -> None:
        """New replicas for all; returns when they are there."""
        assert self.driver.stdin is not None
        assert self.driver.stdout is not None
        self.driver.stdin.write(flags + "\n")
        self.driver.stdin.flush()
        assert self.driver.stdout.readline() == "up\n"

    def engines(self) -> dict[int, psutil.Process]:
        """Processes of the engines' servers."""
        return {each.pid: each for each in self.ray.parts("incomes_server.cli serve")}


@contextmanager
def endpoint(ray: RayCluster, config: Path, model: Path, **args: Any) -> Iterator[Endpoint]:
    import json

    port = free_port()
    told = json.dumps({"config": str(config), "flags": list(VLLM_FLAGS), "num_cpus": 0, **args})
    command = [sys.executable, "-c", DRIVER, ray.address, ray.token, str(port), told]
    with config.with_suffix(".log").open("w") as log:
        driver = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=dict(os.environ)
        )
    try:
        assert driver.stdout is not None
        assert driver.stdin is not None
        assert driver.stdout.readline() == "up\n", config.with_suffix(".log").read_text()[-3000:]
        yield Endpoint(f"http://127.0.0.1:{port}", ray, driver)
        driver.stdin.close()
        driver.wait(120)
    finally:
        driver.kill()
        driver.wait()
        if driver.stdout:
            driver.stdout.close()


class Chats:
    """Threads that chat until the end; every answer is kept by its status."""

    def __init__(self, url: str, number: int) -> None:
        self.answers: list[tuple[int, str, httpx.Headers]] = []
        self.broken: list[str] = []
        self._url, self._done = url, False
        self._threads = [threading.Thread(target=self._chat, args=(TENANTS[n % 2],)) for n in range(number)]

    def __enter__(self) -> Chats:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done = True
        for thread in self._threads:
            thread.join()

    def _chat(self, tenant: str) -> None:
        with client_of(self._url, tenant) as client:
            while not self._done:
                try:
                    answer = client.post("/v1/chat/completions", json=QUESTION)
                    self.answers.append((answer.status_code, answer.text[:200], answer.headers))
                except httpx.HTTPError as error:
                    self.broken.append(repr(error))
                time.sleep(0.05)


def test_engines_behind_one_address(postgres: Cluster, tiny_model: Path, tmp_path: Path) -> None:
    with ExitStack() as opened:
        database = opened.enter_context(postgres.database())
        ray = opened.enter_context(ray_cluster(2))
        config = tmp_path / "incomes.yaml"
        settings = {"ray_address": ray.address, "ray_token": ray.token, "edit_store": database, "pool_bytes": "64MiB"}
        settings |= {"model": str(tiny_model), "adapter": str(tiny_model / "adapter")}
        config.write_text(yaml.safe_dump(settings | {"api_keys": [f"{t}:{key}" for t, key in KEYS.items()]}))
        served = opened.enter_context(endpoint(ray, config, tiny_model, min_engines=2, max_engines=2))
        assert httpx.get(served.url + "/v1/models").status_code == 401, "the gate is the engine's"
        with client_of(served.url, "acme") as client:
            streamed = client.post("/v1/chat/completions", json={**QUESTION, "stream": True})
            assert streamed.headers["content-type"].startswith("text/event-stream")
            assert streamed.text.endswith("data: [DONE]\n\n")
        before = served.engines()
        assert len(before) == 2
        with Chats(served.url, 3) as chats:
            seconds_until(lambda: len(chats.answers) > 20, 60)
            served.replace_all("--max-num-seqs 64")
            seconds_until(lambda: not before.keys() & served.engines().keys(), 120)
        assert chats.broken == []
        assert {status for status, _, _ in chats.answers} == {200}, "a rolling replacement fails no request"
        with Chats(served.url, 3) as chats:
            victim = next(iter(served.engines().values()))
            victim.kill()
            seconds_until(lambda: len(served.engines()) == 2 and victim.pid not in served.engines(), 180)
            so_far = len(chats.answers)
            seconds_until(lambda: len(chats.answers) > so_far + 20, 60)
        refused = [(status, headers.get("retry-after")) for status, _, headers in chats.answers if status != 200]
        assert set(refused) <= {(503, "1")}, [text for status, text, _ in chats.answers if status not in (200, 503)][:3]
        assert chats.broken == []
