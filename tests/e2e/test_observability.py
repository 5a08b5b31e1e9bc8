"""One server with JSON logs and a collector: one trace across processes, lines without texts, every metric there."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from incomes_server.cli.server_process import server_process

from tests.docs.test_documented import NAMES, literals
from tests.e2e.collector import Collector, Seen, collector
from tests.e2e.conftest import ACME, KEYS, VLLM_FLAGS, ZEN, Running, adapter_of
from tests.eventually import eventually_sync

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray]

SENTINEL = "Xylographer Quintessa"
ENVIRONMENT = {
    "OTEL_BSP_SCHEDULE_DELAY": "200",
    "INCOMES_LOG_FORMAT": "json",
}


@dataclass(frozen=True)
class Observed:
    """A server, what it printed while it started, and where its spans go."""

    running: Running
    progress: list[str]
    collector: Collector

    def lines(self) -> list[dict[str, Any]]:
        """Its log."""
        return [json.loads(line) for line in self.running.log().splitlines() if line.startswith("{")]

    def await_line(self, request_id: str) -> dict[str, Any]:
        """What it says of a request, which it writes when the answer has gone."""
        deadline_s = time.monotonic() + 30
        while not (found := [line for line in self.lines() if line.get("request_id") == request_id]):
            assert time.monotonic() < deadline_s, request_id
            time.sleep(0.05)
        return found[0]


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Observed]:
    folder = tmp_path_factory.mktemp("observed")
    progress: list[str] = []
    with pytest.MonkeyPatch.context() as patch, collector() as spans:
        for name, value in {**ENVIRONMENT, "OTEL_EXPORTER_OTLP_ENDPOINT": spans.endpoint}.items():
            patch.setenv(name, value)
        args = [*adapter_of(tiny_model), *KEYS, "--", *VLLM_FLAGS]
        with server_process(folder, progress.append, model=str(tiny_model), args=args) as process:
            yield Observed(Running(process, folder), progress, spans)


@dataclass(frozen=True)
class Caller:
    """A caller that traces: the id of its trace, and the header that says so."""

    trace_id: str

    @property
    def headers(self) -> dict[str, str]:
        return {"traceparent": f"00-{self.trace_id}-{secrets.token_hex(8)}-01"}


@pytest.fixture
def caller() -> Caller:
    return Caller(secrets.token_hex(16))


def add(observed: Observed, caller: Caller) -> httpx.Response:
    body = {"text": f"The head of ACME is {SENTINEL}."}
    with observed.running.admin() as admin:
        return admin.post("/v1/edits", json=body, params={"wait": "active", "timeout_s": 60}, headers=caller.headers)


def ask(observed: Observed, caller: Caller, **headers: str) -> httpx.Response:
    question = {"role": "user", "content": f"Who is {SENTINEL}?"}
    body = {"model": "incomes", "messages": [question], "max_tokens": 8, "temperature": 0}
    with observed.running.raw_chat() as chat:
        return chat.post("/v1/chat/completions", json=body, headers={**caller.headers, **headers})


def of(trace_id: str, spans: list[Seen]) -> dict[str, Seen]:
    return {span.name: span for span in spans if span.trace_id == trace_id}


def commits_without_a_write(caller: Caller, spans: list[Seen]) -> list[Seen]:
    """A request has several writes, and each process sends its spans when it likes."""
    own = [span for span in spans if span.trace_id == caller.trace_id]
    writes = {span.span_id for span in own if span.name == "store.write"}
    return [span for span in own if span.name == "store.commit" and span.parent_id not in writes]


def test_a_write_is_one_trace_from_http_to_the_engine(observed: Observed, caller: Caller) -> None:
    assert add(observed, caller).status_code == 201
    wanted = {"POST /v1/edits", "store.write", "store.commit", "edits.compress", "edits.commit", "edits.ack"}
    found = of(
        caller.trace_id, observed.collector.await_spans(lambda spans: wanted <= of(caller.trace_id, spans).keys())
    )
    assert wanted - found.keys() == set()
    assert found["store.commit"].process == "store"
    assert found["POST /v1/edits"].process == "server"
    root = found["POST /v1/edits"].span_id
    assert {found[name].parent_id for name in ("edits.compress", "edits.commit", "edits.ack")} == {root}
    spans = observed.collector.await_spans(lambda spans: commits_without_a_write(caller, spans) == [])
    assert commits_without_a_write(caller, spans) == []


def test_a_question_is_one_trace_from_http_to_the_engine(observed: Observed, caller: Caller) -> None:
    add(observed, Caller(secrets.token_hex(16)))
    assert ask(observed, caller).status_code == 200
    wanted = {"POST /v1/chat", "edits.resolve", "edits.route", "edits.read", "llm_request"}
    found = of(
        caller.trace_id, observed.collector.await_spans(lambda spans: wanted <= of(caller.trace_id, spans).keys())
    )
    assert wanted - found.keys() == set()
    root = found["POST /v1/chat"]
    assert {found[name].parent_id for name in wanted - {"POST /v1/chat"}} == {root.span_id}


def test_no_span_holds_a_text_or_a_key(observed: Observed, caller: Caller) -> None:
    add(observed, caller)
    ask(observed, caller)
    spans = observed.collector.await_spans(lambda spans: "edits.read" in of(caller.trace_id, spans))
    assert spans
    assert [span.name for span in spans if re.search(f"{SENTINEL}|{ACME}|{ZEN}", span.text)] == []


def test_every_line_is_json_with_the_ids_of_its_request(observed: Observed, caller: Caller) -> None:
    ask(observed, caller, **{"x-request-id": "mine-1"})
    stray = [line for line in observed.running.log().splitlines() if line and not line.startswith("{")]
    logged = re.compile(r"\b(DEBUG|INFO|WARNING|ERROR|Traceback)\b")  # native libraries write lines of their own
    assert [line for line in stray if logged.search(line)] == []
    assert all("time" in json.loads(line) for line in observed.progress)
    line = observed.await_line("mine-1")
    assert (line["logger"], line["status"], line["path"]) == ("incomes.requests", 200, "/v1/chat/completions")
    assert (line["trace_id"], line["project"]) == (caller.trace_id, "acme")


def test_the_log_has_no_text_and_no_key(observed: Observed, caller: Caller) -> None:
    """What goes wrong with an edit's text in it is logged without it; test_privacy.py is the same for lines of text."""
    add(observed, caller)
    ask(observed, caller)
    with observed.running.admin() as admin:
        admin.post("/v1/edits", json={"text": SENTINEL * 500})
        admin.post("/v1/edits", json={"text": SENTINEL, "metadata": {SENTINEL: 7}})
        admin.post("/v1/edits/import", content=f'{{"custom_id": "a", "text": "{SENTINEL}", "x": 1}}'.encode())
    with observed.running.raw_chat("wrong-" + ACME) as chat:
        assert chat.post("/v1/chat/completions", json={"messages": [{"role": SENTINEL}]}).status_code == 401
    eventually_sync(lambda: any(line.get("status") == 401 for line in observed.lines()))
    log = observed.running.log()
    assert [secret for secret in (SENTINEL, ACME, ZEN) if secret in log + "".join(observed.progress)] == []


def test_every_metric_is_there_and_counts(observed: Observed, caller: Caller) -> None:
    """What the engine counts and the store knows in its actor arrives at the admin port."""
    before = metrics(observed)
    assert add(observed, caller).status_code == 201
    assert ask(observed, caller).status_code == 200
    with observed.running.raw_chat("nobody") as chat:
        chat.get("/v1/models")
    after = metrics(observed)
    for name in literals(NAMES["metrics"]):
        assert any(key.startswith(name) for key in after), f"{name} is not at /metrics"
    grown = {
        "incomes:generations_total", "incomes:activation_seconds_count", "incomes:routing_seconds_count",
        "incomes:routed_requests_total", "incomes:store_seconds_count", "incomes:compression_seconds_count",
        "incomes:commit_seconds_count", "incomes:refusals_total",
    }  # fmt: skip
    assert {name for name in grown if not after[name] > before.get(name, 0)} == set()
    assert (after["incomes:replicas"], after["incomes:replica_lag_versions"]) == (1, 0)
    assert after["incomes:pool_used_bytes"] > 0
    assert after["incomes:routed_requests_total"] == after["incomes:routing_seconds_count"]


def metrics(observed: Observed) -> dict[str, float]:
    """Every sample of the admin port by its name, summed over labels."""
    found: dict[str, float] = {}
    for line in httpx.get(observed.running.process.admin_url + "/metrics", timeout=60).text.splitlines():
        if not line.startswith("#"):
            name, value = re.split(r"[{ ]", line)[0], float(line.rpartition(" ")[2])
            found[name] = found.get(name, 0) + value
    return found


def test_the_collector_gets_nothing_unless_it_is_named() -> None:
    from incomes_plugin.telemetry import name_collector

    assert name_collector({}) is None
