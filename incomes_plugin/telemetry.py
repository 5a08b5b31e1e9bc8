"""What ties a line of the log and a span to the request they belong to. Used by the server, its actors and the engine.

in: `x-request-id` and `traceparent` of a request      out: lines of JSON with both ids; spans to an OTLP collector

Nothing is exported unless the standard variables of OpenTelemetry name a collector (`OTEL_EXPORTER_OTLP_ENDPOINT`).
Neither lines nor spans hold a text, a key, or the message of an error that is not ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pythonjsonlogger.json import JsonFormatter

from incomes_plugin.errors import IncomesError

ENDPOINT, TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
PROTOCOL, TRACES_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
HTTP = "http/protobuf"
TRACEPARENT = "traceparent"

request_id_var: ContextVar[str | None] = ContextVar("incomes_request_id", default=None)

_PROPAGATOR = TraceContextTextMapPropagator()


class JsonLines(JsonFormatter):
    """One JSON object a line: `time`, `level`, `logger`, `message`, and the ids of request and trace if there are any.

    vLLM's logging takes it too (`server/boot/engine_log.json`), in every process of the engine.
    """

    def __init__(self, **_: Any) -> None:
        names = {"levelname": "level", "name": "logger"}
        super().__init__("%(levelname)s %(name)s %(message)s", rename_fields=names, timestamp="time")

    def add_fields(self, log_data: dict[str, Any], record: Any, message_dict: dict[str, Any]) -> None:
        """Add the ids."""
        super().add_fields(log_data, record, message_dict)
        if (request_id := request_id_var.get()) is not None:
            log_data.setdefault("request_id", request_id)
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            log_data["trace_id"] = trace.format_trace_id(context.trace_id)


def name_collector(environment: MutableMapping[str, str]) -> str | None:
    """Settle where traces go before anything reads it: vLLM knows the variables for traces only, and takes gRPC by
    default.

    Returns:
        the address of the collector; None: nothing is exported.
    """
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if disabled or environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        environment.pop(TRACES_ENDPOINT, None)
        return None
    protocol = environment.get(TRACES_PROTOCOL) or environment.get(PROTOCOL) or HTTP
    endpoint = environment.get(TRACES_ENDPOINT)
    if not endpoint and (general := environment.get(ENDPOINT)):
        endpoint = f"{general.rstrip('/')}/v1/traces" if protocol == HTTP else general
    if not endpoint:
        return None
    environment[TRACES_ENDPOINT], environment[TRACES_PROTOCOL] = endpoint, protocol
    return endpoint


def export_traces(process: str) -> None:
    """Send this process's spans to the collector that `name_collector` has settled; without one nothing happens.

    Args:
        process: which of the server's processes it is, an attribute of all its spans.
    """
    if not os.environ.get(TRACES_ENDPOINT) or _exports():
        return
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

    exporter: SpanExporter
    if os.environ.get(TRACES_PROTOCOL, HTTP) == HTTP:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

        exporter = OverHttp()
    else:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

        exporter = OverGrpc()
    named = {} if "OTEL_SERVICE_NAME" in os.environ else {SERVICE_NAME: "incomes"}
    provider = TracerProvider(resource=Resource.create({**named, "incomes.process": process}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def _exports() -> bool:
    """Whether this process exports already: vLLM sets its engine's processes up by itself."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@contextmanager
def span(
    name: str, *, context: Context | None = None, kind: SpanKind = SpanKind.INTERNAL, **attributes: Any
) -> Iterator[Span]:
    """A span for the block, under the current one or in `context`, see `context_of`.

    An error ends it as failed, by the code of the error; messages stay out of traces.
    """
    tracer = trace.get_tracer("incomes")
    named = {f"incomes.{key}": value for key, value in attributes.items()}
    with tracer.start_as_current_span(
        name, context, kind, named, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except BaseException as error:
            fail(current, error.code if isinstance(error, IncomesError) else type(error).__name__)
            raise


@contextmanager
def spans(name: str, parents: Iterable[str | None], **attributes: Any) -> Iterator[None]:
    """A span for the block in each of several traces: work that is done for many requests at once."""
    distinct = sorted({parent for parent in parents if parent})
    if not distinct:
        yield
        return
    first, *others = distinct
    tracer = trace.get_tracer("incomes")
    named = {f"incomes.{key}": value for key, value in attributes.items()}
    beside = [tracer.start_span(name, context_of(parent), attributes=named) for parent in others]
    try:
        with span(name, context=context_of(first), **attributes):
            yield
    finally:
        for other in beside:
            other.end()


def record_span(name: str, parent: str, start_ns: int, end_ns: int, **attributes: Any) -> None:
    """A span of something that is over. Times are of `time.time_ns`."""
    named = {f"incomes.{key}": value for key, value in attributes.items()}
    current = trace.get_tracer("incomes").start_span(name, context_of(parent), attributes=named, start_time=start_ns)
    current.end(end_ns)


def fail(current: Span, code: str) -> None:
    """Mark a span as failed."""
    current.set_attribute("error.type", code)
    current.set_status(Status(StatusCode.ERROR))


def context_of(parent: str | None) -> Context | None:
    """The context that a `traceparent` of another process or task names; None: the current one."""
    return None if parent is None else _PROPAGATOR.extract({TRACEPARENT: parent}, Context())


def context_of_headers(headers: Mapping[str, str]) -> Context:
    """The context of a caller's `traceparent` and `tracestate`; an empty one when it sent none, or a broken one."""
    return _PROPAGATOR.extract(dict(headers), Context())


def traceparent() -> str | None:
    """The current span as a `traceparent`; None when there is none, or nobody records it."""
    context = trace.get_current_span().get_span_context()
    if not (context.is_valid and context.trace_flags.sampled):
        return None
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get(TRACEPARENT)
