"""An OpenTelemetry collector on loopback: takes spans over HTTP and keeps them."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Seen:
    """One span, as it arrived."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    process: str
    text: str


@dataclass
class Collector:
    """What has arrived so far."""

    endpoint: str
    spans: list[Seen] = field(default_factory=list)

    def await_spans(self, enough: Callable[[list[Seen]], bool], timeout_s: float = 60.0) -> list[Seen]:
        """Wait until what has arrived is enough; after the timeout, whatever is there."""
        deadline_s = time.monotonic() + timeout_s
        while not enough(self.spans) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        return list(self.spans)


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector for the length of the block."""
    found = Collector("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            found.spans += seen(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


def seen(request: ExportTraceServiceRequest) -> list[Seen]:
    """The spans of one request of an exporter."""
    spans: list[Seen] = []
    for resource in request.resource_spans:
        attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
        process = attributes.get("incomes.process") or attributes.get("vllm.process_kind") or "vllm"
        for scope in resource.scope_spans:
            spans += [
                Seen(s.name, s.trace_id.hex(), s.span_id.hex(), s.parent_span_id.hex(), process, str(s))
                for s in scope.spans
            ]
    return spans
