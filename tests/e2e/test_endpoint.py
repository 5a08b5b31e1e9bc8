"""One address for several engines, by Ray Serve: replaced, killed, and no answer is wrong; compressors by the queue.

Needs `ray[serve]`, which the other tests do without.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
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
if importlib.util.find_spec("opencensus") is None:
    pytest.skip("needs ray[serve]", allow_module_level=True)

DRIVER = """
import json, sys
from incomes_server.boot.ray_local import prepare_ray_environment
address, token, port, args = sys.argv[1:]
prepare_ray_environment(address, token)
import ray
from ray import serve
from incomes_server.boot import compressors
from incomes_server.boot.endpoint import build

ray.init(address=address, namespace="incomes", log_to_driver=False, logging_level="error")
serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
args = json.loads(args)
if compress := args.pop("compress"):
    serve.run(compressors.build(compress), name="compressors", route_prefix=None)
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

    def compressors(self) -> int:
        """How many only compress."""
        return len(self.ray.parts("incomes_server.cli compress"))

    def replicas(self) -> list[psutil.Process]:
        """Serve's own processes, each the parent of an engine's."""
        return self.ray.parts("ServeReplica:default:engine")


@contextmanager
def endpoint(
    ray: RayCluster, config: Path, *, compress: dict[str, Any] | None = None, **args: Any
) -> Iterator[Endpoint]:
    """Serve with the engines of a settings file, and with engines that only compress."""
    own = {"config": str(config), "flags": list(VLLM_FLAGS), "num_cpus": 0}

    port = free_port()
    told = json.dumps({**own, **args, "compress": compress and {**own, **compress}})
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
        self.streams: list[str] = []
        self._url, self._done = url, False
        self._threads = [threading.Thread(target=self._chat, args=(TENANTS[n % 2], n == 0)) for n in range(number)]

    def __enter__(self) -> Chats:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done = True
        for thread in self._threads:
            thread.join()

    def _chat(self, tenant: str, stream: bool) -> None:
        asked = {**QUESTION, "stream": True, "max_tokens": 200, "ignore_eos": True} if stream else QUESTION
        with client_of(self._url, tenant) as client:
            while not self._done:
                try:
                    answer = client.post("/v1/chat/completions", json=asked)
                    if stream and answer.status_code == 200:
                        self.streams.append(answer.text)
                    self.answers.append((answer.status_code, answer.text[:200], answer.headers))
                except httpx.HTTPError as error:
                    self.broken.append(repr(error))
                time.sleep(0.05)


@pytest.fixture
def database(postgres: Cluster) -> Iterator[str]:
    """It outlives the store, which lives as long as the cluster does."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def cluster(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayCluster]:
    """Two nodes whose proxies have our middleware, as an operator starts them."""
    monkeypatch.setenv("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "incomes_server.boot.front:middlewares")
    with ray_cluster(2) as ray:
        yield ray


def settings_file(ray: RayCluster, database: str, model: Path, folder: Path, **settings: Any) -> Path:
    """Of every engine; the address of the cluster is not in it."""
    settings |= {"ray_token": ray.token, "edit_store": database, "pool_bytes": "64MiB"}
    settings |= {"model": str(model), "adapter": str(model / "adapter")}
    config = folder / "incomes.yaml"
    config.write_text(yaml.safe_dump(settings | {"api_keys": [f"{t}:{key}" for t, key in KEYS.items()]}))
    return config


def whole_or_said_so(stream: str) -> bool:
    """It ends as a stream ends, or with an error that its client can read."""
    last = [line for line in stream.splitlines() if line][-1]
    return last == "data: [DONE]" or json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_lost"


def test_engines_behind_one_address(cluster: RayCluster, database: str, tiny_model: Path, tmp_path: Path) -> None:
    with ExitStack() as opened:
        config = settings_file(cluster, database, tiny_model, tmp_path)
        served = opened.enter_context(endpoint(cluster, config, min_engines=2, max_engines=2))
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
        failed = [(status, text) for status, text, _ in chats.answers if status != 200]
        assert failed == [], "a rolling replacement fails no request"
        for kill in (engine_of, replica_of):
            assert_a_kill_is_hardly_seen(served, kill)


def engine_of(served: Endpoint) -> psutil.Process:
    """The server that a replica has as its child."""
    return next(iter(served.engines().values()))


def replica_of(served: Endpoint) -> psutil.Process:
    """Serve's own process; its engine ends with it."""
    return served.replicas()[0]


def assert_a_kill_is_hardly_seen(served: Endpoint, find: Callable[[Endpoint], psutil.Process]) -> None:
    """What had not begun is answered by the other engine, or 503 with Retry-After; streams say that they broke."""
    with Chats(served.url, 3) as chats:
        seconds_until(lambda: len(chats.answers) > 20, 60)
        before, victim = served.engines(), find(served)
        victim.kill()
        seconds_until(lambda: len(served.engines()) == 2 and before.keys() != served.engines().keys(), 180)
        so_far = len(chats.answers)
        seconds_until(lambda: len(chats.answers) > so_far + 20, 60)
    assert chats.broken == []
    refused = [(status, headers.get("retry-after")) for status, _, headers in chats.answers if status != 200]
    assert set(refused) <= {(503, "1")}, [text for status, text, _ in chats.answers if status not in (200, 503)][:3]
    assert [stream[-300:] for stream in chats.streams if not whole_or_said_so(stream)] == []


def test_compressors_come_and_go_with_the_queue(
    cluster: RayCluster, database: str, tiny_model: Path, tmp_path: Path
) -> None:
    number, admin_port = 90, free_port()
    with ExitStack() as opened:
        config = settings_file(cluster, database, tiny_model, tmp_path, compress_here=False, compression_batch=1)
        compress = {"max_compressors": 2, "edits_a_compressor": 30, "idle_s": 2}
        served = opened.enter_context(endpoint(cluster, config, compress=compress, admin_port=admin_port))
        assert served.compressors() == 0, "nothing waits"
        admin = opened.enter_context(client_of(f"http://127.0.0.1:{admin_port}", "acme"))
        for n in range(number):
            added = admin.post(
                "/v1/edits", json={"text": f"The code of item {n} is {n * 7}."}, params={"wait": "accepted"}
            )
            assert added.status_code == 202, added.text
        seconds_until(lambda: served.compressors() == 2, 120)

        def made() -> int:
            answer = admin.get("/v1/edits", params={"status": "ready", "limit": number})
            return len(answer.json()["data"])

        seconds_until(lambda: made() == number, 300)
        seconds_until(lambda: served.compressors() == 0, 120)
        assert admin.get("/v1/workers").status_code == 200
