"""Several engines on one Ray cluster share one edit store on PostgreSQL: what one acknowledges, all of them serve."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from incomes_server.cli.server_process import free_port, server_process

from tests.attack.parts import seconds_until
from tests.e2e.conftest import KEYS, VLLM_FLAGS, Running, adapter_of, add, ask, logprobs
from tests.postgres import Cluster
from tests.ray_cluster import RayCluster, ray_cluster

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray, pytest.mark.timeout(1800)]

FACT = "The warranty of pump Z9 is 36 months."


@dataclass
class Fleet:
    """A Ray cluster, a database, and servers that are started on them."""

    ray: RayCluster
    database: str
    folder: Path
    model: Path
    namespace: str = "incomes"
    started: int = 0

    @contextmanager
    def server(self, *, join: bool = True, **settings: Any) -> Iterator[Running]:
        """One more engine; the first makes the store, the others join it."""
        folder = self._folder()
        where = ["--join", self.ray.address] if join else ["--edit-store", self.database]
        settings |= {} if join else {"ray_address": self.ray.address}
        flags = [*self._config(folder, settings), *where, *adapter_of(self.model), *KEYS, "--", *VLLM_FLAGS]
        with server_process(folder, lambda _: None, model=str(self.model), args=flags) as process:
            yield Running(process, folder)

    @contextmanager
    def compressor(self) -> Iterator[subprocess.Popen[str]]:
        """An engine that only compresses, once it does."""
        folder = self._folder()
        command = [sys.executable, "-m", "incomes_server.cli", "compress", str(self.model), *adapter_of(self.model)]
        command += ["--join", self.ray.address, "--admin-port", str(free_port()), *self._config(folder, {})]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen([*command, "--", *VLLM_FLAGS], stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            assert any("compressing: probes" in line for line in process.stdout), (folder / "log").read_text()[-3000:]
            yield process
        finally:
            process.terminate()
            process.wait(60)
            if process.stdout:
                process.stdout.close()

    def _folder(self) -> Path:
        self.started += 1
        folder = self.folder / f"{self.namespace}-{self.started}"
        folder.mkdir()
        return folder

    def _config(self, folder: Path, settings: dict[str, Any]) -> list[str]:
        file = folder / "incomes.yaml"
        shared = {"ray_token": self.ray.token, "ray_namespace": self.namespace, "pool_bytes": "64MiB"}
        file.write_text(yaml.safe_dump(shared | settings))
        return ["--config", str(file)]


@pytest.fixture(scope="module")
def fleet(postgres: Cluster, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with ExitStack() as opened:
        database = opened.enter_context(postgres.database())
        ray = opened.enter_context(ray_cluster())
        yield Fleet(ray, database, tmp_path_factory.mktemp("fleet"), tiny_model)


@pytest.fixture(scope="module")
def pair(fleet: Fleet) -> Iterator[tuple[Running, Running]]:
    with fleet.server(join=False) as first, fleet.server() as second:
        yield first, second


def serving(client: httpx.Client) -> list[str]:
    """Names of the engines that serve."""
    return [each["id"] for each in client.get("/v1/replicas").json()["data"] if each["serving"]]


def test_an_edit_of_one_server_changes_the_answer_of_the_other(pair: tuple[Running, Running]) -> None:
    first, second = pair
    before = logprobs(ask(second.chat()))
    with first.admin() as admin:
        assert len(serving(admin)) == 2
        edit = add(admin, "default", FACT)
    raw = ask(second.chat())
    assert [each["edit"] for each in raw.parse().model_extra["edits"]["applied"]] == [edit["id"]]
    assert logprobs(raw) != before
    assert logprobs(raw) == logprobs(ask(first.chat())), "both have made the same of it"
    with second.admin() as admin:
        assert admin.post(f"/v1/edits/{edit['id']}/retire", params={"timeout_s": 60}).json()["reached"] == "active"
    assert logprobs(ask(first.chat())) == before


def test_a_new_engine_has_everything_before_it_is_ready_and_leaves_at_once(
    fleet: Fleet, pair: tuple[Running, Running]
) -> None:
    with pair[0].admin() as admin:
        edit = add(admin, "default", FACT)
        with fleet.server() as third:
            assert len(serving(admin)) == 3
            raw = ask(third.chat())
            assert [each["edit"] for each in raw.parse().model_extra["edits"]["applied"]] == [edit["id"]]
        assert len(serving(admin)) == 2, "one that was stopped is waited for no longer"
        retired = admin.post(f"/v1/edits/{edit['id']}/retire", params={"timeout_s": 60}).json()
        assert retired["reached"] == "active"


def test_an_engine_that_is_killed_is_waited_for_only_until_its_lease_ends(
    fleet: Fleet, pair: tuple[Running, Running]
) -> None:
    with pair[0].admin() as admin, fleet.server() as third:
        third.process.process.kill()
        add(admin, "default", FACT)
        seconds_until(lambda: len(serving(admin)) == 2, 60)


def test_compressors_make_the_gists_and_one_that_is_killed_holds_none_up(fleet: Fleet, postgres: Cluster) -> None:
    with ExitStack() as opened:
        database = opened.enter_context(postgres.database())
        apart = replace(fleet, ray=opened.enter_context(ray_cluster()), database=database, namespace="apart", started=0)
        server = opened.enter_context(apart.server(join=False, compress_here=False))
        admin = opened.enter_context(server.admin())
        waiting = admin.post("/v1/edits", json={"text": FACT}, params={"wait": "active", "timeout_s": 2})
        assert (waiting.status_code, waiting.json()["status"]) == (202, "pending"), "nobody compresses yet"
        first = opened.enter_context(apart.compressor())
        second = opened.enter_context(apart.compressor())
        texts = [f"The pump {number} weighs {number} kg." for number in range(300)]
        for text in texts:
            admin.post("/v1/edits", json={"text": text}).raise_for_status()
        first.kill()
        add(admin, "default", "The last one.")
        seconds_until(lambda: statuses(admin) == {"ready": 302}, 120)
        workers = {each["id"]: each["made"] for each in admin.get("/v1/workers").json()["data"]}
        assert sum(workers.values()) >= 302
        assert second.poll() is None


def statuses(admin: httpx.Client) -> dict[str, float]:
    """Edit versions by status, as the metrics say."""
    lines = [line for line in admin.get("/metrics").text.splitlines() if line.startswith("incomes:edits{")]
    found = {line.split('"')[1]: float(line.split()[1]) for line in lines}
    return {status: number for status, number in found.items() if number}
