"""Start, SIGTERM in mid-stream, restart with the same store, a dead engine: nothing lost, nothing left running."""

import os
import signal
import subprocess
import sys
import threading
import time

import httpx
import psutil
import pytest
from incomes_server.cli.server_process import free_port, server_process

from tests.e2e.conftest import PROMPT, VLLM_FLAGS, Running, add, ask, logprobs

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray]


def family(process):
    parent = psutil.Process(process.process.pid)
    return [parent, *parent.children(recursive=True)]


def assert_gone(processes):
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive, [p.cmdline() for p in alive]


def test_stop_restart_and_a_dead_engine(tmp_path, tiny_model):
    lines = []
    with server_process(tmp_path, lines.append, model=str(tiny_model), args=["--", *VLLM_FLAGS]) as process:
        running = Running(process, tmp_path)
        stages = "\n".join(lines)
        for stage in ("Ray", "engine load", "agree on the model", "canary", "caught up", "ready: chat http://"):
            assert stage in stages
        assert not listening_beyond_loopback(process)
        with running.admin() as admin:
            edit = add(admin, "default", "The warranty is 36 months.")
        edited = logprobs(ask(running.chat()))
        processes = family(process)
        stream = running.chat().chat.completions.create(
            model="incomes", messages=[{"role": "user", "content": PROMPT}], max_tokens=300, stream=True
        )
        next(stream)
        reader = threading.Thread(target=drain, args=(stream,))
        reader.start()
        assert process.stop() == 0
        reader.join(30)
        assert_gone(processes)

    with server_process(tmp_path, lines.append, model=str(tiny_model), args=["--", *VLLM_FLAGS]) as process:
        running = Running(process, tmp_path)
        again = ask(running.chat())
        assert again.headers["x-incomes-edits"] == "1"
        assert again.parse().model_extra["edits"]["applied"][0]["edit"] == edit["id"]
        assert logprobs(again) == edited

        processes = family(process)
        (engine,) = [p for p in processes[1:] if "EngineCore" in "".join(p.cmdline())]
        engine.kill()
        await_engine_loss(process)
        with running.raw_chat() as client:
            body = {"model": "incomes", "messages": [{"role": "user", "content": PROMPT}]}
            answer = client.post("/v1/chat/completions", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_lost")
        assert httpx.get(process.admin_url + "/livez").status_code == 503
        assert process.stop() == 0
        assert_gone(processes)


def drain(stream):
    try:
        for _ in stream:
            pass
    except Exception:  # noqa: BLE001 - the server may end the stream; that it ends is what counts
        pass


def await_engine_loss(process):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        checks = httpx.get(process.admin_url + "/readyz").json()["checks"]
        if not checks["engine"]["ok"]:
            return
        time.sleep(0.2)
    pytest.fail("the server did not notice that the engine died")


def listening_beyond_loopback(process):
    return [
        (p.name(), c.laddr)
        for p in family(process)
        for c in p.net_connections(kind="inet")
        if c.status == psutil.CONN_LISTEN and c.laddr.ip.removeprefix("::ffff:") not in {"127.0.0.1", "::1"}
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_leaves_nothing(tmp_path, tiny_model, number):
    ports = ["--port", str(free_port()), "--admin-port", str(free_port())]
    store = ["--edit-store", f"sqlite:///{tmp_path / 'edits.db'}"]
    command = [sys.executable, "-m", "incomes_server.cli", "serve", str(tiny_model), *ports, *store]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    time.sleep(8)
    processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(number)
    assert process.wait(90) == 0, (tmp_path / "log").read_text()[-2000:]
    assert_gone(processes)
