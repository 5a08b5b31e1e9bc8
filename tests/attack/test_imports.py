"""A large import: nothing holds the event loop up, whose chats and probes go on."""

import json
import re
from pathlib import Path

import pytest

from tests.attack.conftest import IS_LONG, note

pytestmark = [pytest.mark.attack, pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray, pytest.mark.timeout(1800)]

EDITS = 5000 if IS_LONG else 1000
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


def test_an_import_does_not_hold_the_event_loop_up(watched):
    before = len(slow_callbacks(watched))  # of the start
    body = "\n".join(json.dumps({"custom_id": str(i), "text": f"Fact {i} is that {i}."}) for i in range(EDITS))
    with watched.admin() as admin:
        admin.timeout = 900
        answer = admin.post("/v1/edits/import", content=body, params={"wait": "active", "timeout_s": 590})
    assert answer.status_code == 200, answer.text[:500]
    assert answer.json()["request_counts"] == {"total": EDITS, "completed": EDITS, "failed": 0}
    assert {line["status"] for line in answer.json()["data"]} == {"ready"}
    slow = slow_callbacks(watched)[before:]
    worst = max((own for _, _, own in slow), default=0.0)
    note(attack="import", edits=EDITS, longest_callback_ms=1e3 * worst, slow_by_the_clock=len(slow))
    assert [entry for entry in slow if entry[2] >= LIMIT_S] == []
