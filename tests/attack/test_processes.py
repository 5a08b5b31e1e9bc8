"""Processes that stop, are killed or lose their parent: seen within 5 s, nothing stays, nothing written is lost."""

import time

import psutil
import pytest

from tests.attack.conftest import CHAT, IS_LONG, note
from tests.attack.parts import MARKS, part, ready, seconds_until

pytestmark = [pytest.mark.attack, pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray, pytest.mark.timeout(3000)]

RESTARTED_BY_RAY = ("store", "scheduler")
SEEN_WITHIN_S = 5.0


@pytest.mark.parametrize("name", MARKS)
def test_a_stopped_part_is_seen(target, name):
    process = part(target, name)
    process.suspend()
    try:
        seen_s = seconds_until(lambda: not ready(target), SEEN_WITHIN_S + 0.5)
    finally:
        process.resume()
    note(attack="stop", part=name, not_ready_after_s=round(seen_s, 2))
    seconds_until(lambda: ready(target), 60)
    with target.chat() as client:
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200


@pytest.mark.parametrize("name", RESTARTED_BY_RAY)
def test_a_killed_actor_comes_back(target, name):
    with target.admin() as admin:
        edit = admin.post("/v1/edits", json={"text": f"Before {name}."}, params={"wait": "active"}).json()
        part(target, name).kill()
        answer = admin.post("/v1/edits", json={"text": f"After {name}."}, params={"wait": "active", "timeout_s": 60})
        assert answer.json()["reached"] == "active", answer.text
        assert admin.get(f"/v1/edits/{edit['id']}").json()["status"] == "ready"
    seconds_until(lambda: ready(target), 30)


@pytest.mark.parametrize("name", ["main", "gcs", "raylet"] if IS_LONG else ["main", "raylet"])
def test_nothing_outlives_a_killed_part(tmp_path, start, name):
    with start(tmp_path) as target:
        server = target.process.process
        family = psutil.Process(server.pid).children(recursive=True)
        (server if name == "main" else part(target, name)).kill()
        assert server.wait(30) == (-9 if name == "main" else 3)
        start_s = time.monotonic()
        _, alive = psutil.wait_procs(family, timeout=SEEN_WITHIN_S)
        note(attack="kill", part=name, all_gone_after_s=round(time.monotonic() - start_s, 2))
        assert not alive, [p.cmdline() for p in alive]
