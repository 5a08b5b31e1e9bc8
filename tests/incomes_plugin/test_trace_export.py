"""Two processes and a collector on loopback: spans of both arrive in one trace, and only when a collector is named."""

import os
import subprocess
import sys

import pytest

from tests.e2e.collector import collector

SCRIPT = """
import os, sys
from incomes_plugin import telemetry
telemetry.name_collector(os.environ)
telemetry.export_traces(sys.argv[1])
with telemetry.span(sys.argv[1], context=telemetry.context_of(sys.argv[2] if len(sys.argv) > 2 else None)):
    print(telemetry.traceparent())
"""


def run(name, endpoint, parent=None):
    """A process that makes one span; its traceparent."""
    environment = {**os.environ, **({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint} if endpoint else {})}
    command = [sys.executable, "-c", SCRIPT, name, *([parent] if parent else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip()


def test_spans_of_two_processes_are_one_trace():
    with collector() as found:
        first = run("server", found.endpoint)
        second = run("engine", found.endpoint, parent=first)
        spans = {span.process: span for span in found.await_spans(lambda spans: len(spans) == 2)}
    assert set(spans) == {"server", "engine"}
    assert {first.split("-")[1], second.split("-")[1]} == {span.trace_id for span in spans.values()}
    assert len({span.trace_id for span in spans.values()}) == 1
    assert spans["engine"].parent_id == spans["server"].span_id


@pytest.mark.parametrize("parent", [None, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"])
def test_without_a_collector_nothing_is_recorded(parent):
    assert run("server", None, parent) == "None"
