"""Several engines on one Ray cluster share one edit store on PostgreSQL: what one acknowledges, all of them serve."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from incomes_server.cli.server_process import server_process

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
    started: int = 0

    @contextmanager
    def server(self, *args: str, join: bool = True) -> Iterator[Running]:
        """One more engine; the first makes the store, the others join it."""
        self.started += 1
        folder = self.folder / f"server-{self.started}"
        folder.mkdir()
        config = folder / "incomes.yaml"
        where = ["--join", self.ray.address] if join else ["--edit-store", self.database]
        address = {} if join else {"ray_address": self.ray.address}
        config.write_text(yaml.safe_dump({"ray_token": self.ray.token, "pool_bytes": "64MiB", **address}))
        flags = ["--config", str(config), *where, *adapter_of(self.model), *KEYS, *args, "--", *VLLM_FLAGS]
        with server_process(folder, lambda _: None, model=str(self.model), args=flags) as process:
            yield Running(process, folder)


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
