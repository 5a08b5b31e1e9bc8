"""Every request has an id, a span under its caller's, and with JSON logs a line."""

import logging

import httpx
import pytest
from incomes_server.api.http.request_id import RequestIdMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_trace_id
from starlette.responses import PlainTextResponse

from incomes_plugin import telemetry

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
HEADERS = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01", "x-request-id": "mine"}


@pytest.fixture
def spans(monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry.trace, "get_tracer", provider.get_tracer)
    return exporter.get_finished_spans


async def app(scope, receive, send):
    if scope["path"] == "/broken":
        raise RuntimeError("the text of an edit")
    scope["state"]["project"] = "acme"
    await PlainTextResponse(telemetry.request_id_var.get() or "")(scope, receive, send)


async def get(path, **headers):
    transport = httpx.ASGITransport(RequestIdMiddleware(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        return await client.get(path, headers=headers)


@pytest.fixture
def lines(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("incomes.requests"), "disabled", False)
    caplog.set_level(logging.INFO)
    return lambda: [record for record in caplog.records if record.name == "incomes.requests"]


async def test_the_callers_ids_are_taken_up(spans, lines):
    answer = await get("/v1/edits/edit_1", **HEADERS)
    assert (answer.text, answer.headers["x-request-id"]) == ("mine", "mine")
    (span,) = spans()
    assert (span.name, format_trace_id(span.context.trace_id)) == ("GET /v1/edits", TRACE_ID)
    assert span.attributes["http.response.status_code"] == 200
    (line,) = lines()
    assert (line.method, line.path, line.status, line.project) == ("GET", "/v1/edits/edit_1", 200, "acme")
    assert telemetry.request_id_var.get() is None


async def test_a_defect_is_a_failed_span_without_its_message(spans, lines):
    assert (await get("/broken")).status_code == 500
    (span,) = spans()
    assert not span.status.is_ok
    assert "the text of an edit" not in span.to_json()
    assert lines()[0].status == 500


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_probes_and_scrapes_leave_no_trace(spans, lines, path):
    assert "x-request-id" in (await get(path)).headers
    assert (spans(), lines()) == ((), [])


async def test_without_a_caller_the_request_begins_a_trace(spans):
    assert (await get("/v1/models")).headers["x-request-id"].startswith("req_")
    assert spans()[0].parent is None
