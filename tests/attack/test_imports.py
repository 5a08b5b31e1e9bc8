"""A large import: nothing holds the event loop up, whose chats and probes go on."""

import json
import re
from pathlib import Path

import pytest

from tests.attack.conftest import IS_LONG, note

pytestmark = [pytest.mark.attack, pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray, pytest.mark.timeout(1800)]

EDITS = 5000 if IS_LONG else 300
CHECKED = 20_000
"""Lines of an import that only checks them."""

LIMIT_S = 0.02
SLOW = re.compile(r"Executing (.*) took ([\d.]+) seconds, of the processor ([\d.]+)")


@pytest.fixture(scope="module")
def watched(tmp_path_factory, start):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent / "watched_loop"))
        with start(tmp_path_factory.mktemp("watched")) as target:
            yield target


def slow_callbacks(target):
    return [(name, float(wall), float(own)) for name, wall, own in SLOW.findall(target.process.log.read_text())]


def lines(count):
    return "\n".join(json.dumps({"custom_id": str(i), "text": f"Fact {i} is that {i}."}) for i in range(count))


@pytest.mark.parametrize(("count", "dry_run"), [(CHECKED, True), (EDITS, False)])
def test_an_import_does_not_hold_the_event_loop_up(watched, count, dry_run):
    before = len(slow_callbacks(watched))  # of the start
    query = {"wait": "active", "timeout_s": 590, "dry_run": dry_run}
    with watched.admin() as admin:
        admin.timeout = 900
        answer = admin.post("/v1/edits/import", content=lines(count), params=query)
    assert answer.status_code == 200, answer.text[:500]
    assert answer.json()["request_counts"] == {"total": count, "completed": count, "failed": 0}
    assert {line["status"] for line in answer.json()["data"]} == {None if dry_run else "ready"}
    slow = slow_callbacks(watched)[before:]
    worst = max((own for _, _, own in slow), default=0.0)
    note(attack="import", edits=count, dry_run=dry_run, longest_callback_ms=1e3 * worst, slow_by_the_clock=len(slow))
    assert [entry for entry in slow if entry[2] >= LIMIT_S] == []
