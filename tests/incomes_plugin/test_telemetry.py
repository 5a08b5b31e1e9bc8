"""Where traces go, the parents of spans, and lines of JSON, without a collector."""

import json
import logging

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_trace_id

from incomes_plugin import telemetry
from incomes_plugin.errors import PoolFull

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203332-01"
BASE, TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


@pytest.fixture
def exported(monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry.trace, "get_tracer", provider.get_tracer)
    return exporter.get_finished_spans


@pytest.mark.parametrize(
    ("given", "endpoint", "protocol"),
    [
        ({}, None, None),
        ({BASE: "http://c:4318"}, "http://c:4318/v1/traces", "http/protobuf"),
        ({BASE: "http://c:4318/"}, "http://c:4318/v1/traces", "http/protobuf"),
        ({BASE: "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http://c:4317", "grpc"),
        ({BASE: "http://c:1", TRACES: "http://d:2/x"}, "http://d:2/x", "http/protobuf"),
        ({BASE: "http://c:1", "OTEL_TRACES_EXPORTER": "none"}, None, None),
        ({TRACES: "http://c:1", "OTEL_SDK_DISABLED": "true"}, None, None),
    ],
)
def test_the_standard_variables_say_where_traces_go(given, endpoint, protocol):
    environment = dict(given)
    assert telemetry.name_collector(environment) == endpoint
    assert environment.get(TRACES) == endpoint
    assert environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") == protocol


def test_a_span_of_another_process_is_the_parent(exported):
    with telemetry.span("a", context=telemetry.context_of(PARENT), edits=3), telemetry.span("b"):
        inner = telemetry.traceparent()
    b, a = exported()
    assert format_trace_id(a.context.trace_id) == PARENT.split("-")[1] == inner.split("-")[1]
    assert (b.parent.span_id, a.attributes["incomes.edits"]) == (a.context.span_id, 3)


def test_an_error_ends_a_span_by_its_code_without_its_message(exported):
    with pytest.raises(PoolFull), telemetry.span("a"):
        raise PoolFull("secret text")
    (a,) = exported()
    assert a.attributes["error.type"] == "pool_full"
    assert not a.status.is_ok
    assert "secret" not in a.to_json()


def test_work_for_many_has_a_span_in_each_trace(exported):
    with telemetry.spans("a", [PARENT, None, OTHER, PARENT]):
        pass
    assert {format_trace_id(span.context.trace_id) for span in exported()} == {
        parent.split("-")[1] for parent in (PARENT, OTHER)
    }
    with telemetry.spans("nobody", [None]):
        pass
    assert len(exported()) == 2


def test_nobody_records_nothing_is_passed_on():
    assert telemetry.traceparent() is None
    with telemetry.span("a"):
        assert telemetry.traceparent() is None


@pytest.mark.parametrize("header", ["", "nonsense", PARENT[:20], "00-" + "0" * 32 + "-b7ad6b7169203331-01"])
def test_a_broken_traceparent_is_no_parent(exported, header):
    with telemetry.span("a", context=telemetry.context_of_headers({"traceparent": header})):
        pass
    assert exported()[0].parent is None


def line_of(**extra):
    record = logging.LogRecord("incomes.x", logging.INFO, "", 0, "said %d", (3,), None)
    for name, value in extra.items():
        setattr(record, name, value)
    return json.loads(telemetry.JsonLines().format(record))


def test_a_line_has_the_ids_of_its_request(exported):
    token = telemetry.request_id_var.set("req_1")
    try:
        with telemetry.span("a", context=telemetry.context_of(PARENT)):
            line = line_of(status=200)
    finally:
        telemetry.request_id_var.reset(token)
    assert (line["message"], line["level"], line["logger"], line["status"]) == ("said 3", "INFO", "incomes.x", 200)
    assert (line["request_id"], line["trace_id"]) == ("req_1", PARENT.split("-")[1])
    assert "time" in line


def test_a_line_of_no_request_has_no_ids():
    assert {"request_id", "trace_id"} & line_of().keys() == set()
