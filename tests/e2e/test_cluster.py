"""Several engines on one Ray cluster share one edit store on PostgreSQL: what one acknowledges, all of them serve.

`CLUSTER=long` runs the scenarios of `benchmarks/cluster.py` at their full size; without it, one of each kind, short.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks import cluster
from tests.attack.parts import seconds_until
from tests.e2e.conftest import Running, add, ask, logprobs
from tests.fleet import Fleet
from tests.postgres import Cluster
from tests.ray_cluster import ray_cluster

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray, pytest.mark.timeout(3600)]

IS_LONG = os.environ.get("CLUSTER") == "long"
FACT = "The warranty of pump Z9 is 36 months."


@contextmanager
def running(fleet: Fleet, **settings: Any) -> Iterator[Running]:
    """One more engine of a fleet."""
    with fleet.server(**settings) as process:
        yield Running(process, fleet.folder)


@pytest.fixture(scope="module")
def fleet(postgres: Cluster, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with ExitStack() as opened:
        database = opened.enter_context(postgres.database())
        ray = opened.enter_context(ray_cluster())
        yield Fleet(ray, database, tmp_path_factory.mktemp("fleet"), tiny_model)


@pytest.fixture(scope="module")
def pair(fleet: Fleet) -> Iterator[tuple[Running, Running]]:
    with running(fleet, join=False) as first, running(fleet) as second:
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
        with running(fleet) as third:
            assert len(serving(admin)) == 3
            raw = ask(third.chat())
            assert [each["edit"] for each in raw.parse().model_extra["edits"]["applied"]] == [edit["id"]]
        assert len(serving(admin)) == 2, "one that was stopped is waited for no longer"
        retired = admin.post(f"/v1/edits/{edit['id']}/retire", params={"timeout_s": 60}).json()
        assert retired["reached"] == "active"


def test_an_engine_that_is_killed_is_waited_for_only_until_its_lease_ends(
    fleet: Fleet, pair: tuple[Running, Running]
) -> None:
    with pair[0].admin() as admin, running(fleet) as third:
        third.process.process.kill()
        add(admin, "default", FACT)
        seconds_until(lambda: len(serving(admin)) == 2, 60)


@pytest.mark.skipif(not IS_LONG, reason="CLUSTER=long")
def test_compressors_make_the_gists_and_one_that_is_killed_holds_none_up(fleet: Fleet, postgres: Cluster) -> None:
    with ExitStack() as opened:
        database = opened.enter_context(postgres.database())
        apart = Fleet(opened.enter_context(ray_cluster()), database, fleet.folder / "apart", fleet.model)
        server = opened.enter_context(running(apart, join=False, compress_here=False))
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


def test_kills_under_load_lose_nothing_and_leave_no_answer_stale(tmp_path: Path) -> None:
    short = {"engines": 2, "compressors": 1, "chatters": 3, "victims": ("engine", "compressor", "store actor")}
    found = cluster.kills(tmp_path, seconds=60 if IS_LONG else 5, **({} if IS_LONG else short))
    assert_kept(found)
    assert {each["killed"] for each in found["kills"]} >= {"engine", "compressor", "store actor"}


@pytest.mark.skipif(not IS_LONG, reason="CLUSTER=long")
@pytest.mark.parametrize("scenario", ["scale", "rolling", "database", "storage"])
def test_scenarios(tmp_path: Path, scenario: str) -> None:
    found = cluster.SCENARIOS[scenario](tmp_path)
    assert_kept(found)
    assert found.get("answers_behind_the_label", 0) == 0
    if scenario == "rolling":
        assert (found["refused"], found["connections_broken_by_a_kill"]) == ({}, 0)


def assert_kept(found: dict[str, Any]) -> None:
    """The promises: nothing lost, nothing stale, nothing of another tenant; refusals are 503 with Retry-After."""
    kept = ("lost", "stale_after_active", "wrong_tenant_or_answer")
    assert {name: found[name] for name in kept} == dict.fromkeys(kept, 0), found["notes"]
    assert found["adds"] > 0
    assert all(code.startswith("503 ") or code == "nobody is ready" for code in found["refused"]), found["refused"]
