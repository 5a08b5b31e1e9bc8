"""Start, SIGTERM in mid-stream, restart with the same store, a dead engine: nothing lost, nothing left running."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from incomes_server.cli.server_process import free_port, server_process

from tests.e2e.conftest import PROMPT, VLLM_FLAGS, Running, adapter_of, add, ask, logprobs
from tests.eventually import eventually_sync

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray]


def family(process):
    parent = psutil.Process(process.process.pid)
    return [parent, *parent.children(recursive=True)]


def await_log(log, text):
    deadline = time.monotonic() + 150
    while text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.05)


def assert_gone(processes):
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive, [p.cmdline() for p in alive]


def test_stop_restart_full_pool_and_a_dead_engine(tmp_path, tiny_model, monkeypatch):
    lines = []
    args = [*adapter_of(tiny_model), "--", *VLLM_FLAGS]
    with server_process(tmp_path, lines.append, model=str(tiny_model), args=args) as process:
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

    monkeypatch.setenv("INCOMES_POOL_BYTES", "1250KB")
    with server_process(tmp_path, lines.append, model=str(tiny_model), args=args) as process:
        running = Running(process, tmp_path)
        again = ask(running.chat())
        assert again.headers["x-incomes-edits"] == "1"
        assert again.parse().model_extra["edits"]["applied"][0]["edit"] == edit["id"]
        assert logprobs(again) == edited
        with running.admin() as admin:
            fill_the_pool(admin, edit["id"])

        processes = family(process)
        (engine,) = [p for p in processes[1:] if "EngineCore" in "".join(p.cmdline())]
        with running.raw_chat() as client, ThreadPoolExecutor() as pool:
            body = {"model": "incomes", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 400, "n": 16}
            in_flight = pool.submit(client.post, "/v1/chat/completions", json=body)
            time.sleep(0.1)
            engine.suspend()
            time.sleep(0.2)
            engine.kill()
            answer = in_flight.result(30)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_lost")
        assert process.process.wait(30) == 3
        assert "\nerror: " in process.log.read_text()
        assert_gone(processes)


def fill_the_pool(admin, edit_id):
    """A full pool refuses before anything is stored, and takes edits again once one is retired."""
    codes = []
    for batch in range(8):  # together more than the pool takes
        lines = [json.dumps({"custom_id": str(i), "text": f"Fact {batch}-{i}."}) for i in range(40)]
        answer = admin.post("/v1/edits/import", content="\n".join(lines), params={"wait": "active", "timeout_s": 60})
        codes.append({line["error"]["code"] if line["error"] else line["status"] for line in answer.json()["data"]})
    good = codes.count({"ready"})
    assert codes == [{"ready"}] * good + [{"pool_full"}] * (8 - good)
    assert 1 <= good < 8
    assert admin.get("/v1/edits", params={"status": "pending"}).json()["data"] == []
    retired = admin.post(f"/v1/edits/{edit_id}/retire")
    assert (retired.status_code, retired.json()["reached"]) == (200, "active"), retired.text
    assert admin.delete("/v1/edit_sets/default").json()["reached"] == "active"
    fact = {"text": "Fact."}  # has room as soon as the superseded snapshots have left the pool
    eventually_sync(lambda: admin.post("/v1/edits", json=fact, params={"wait": "active"}).status_code == 201)


def drain(stream):
    try:
        for _ in stream:
            pass
    except Exception:  # noqa: BLE001 - the server may end the stream; that it ends is what counts
        pass


def listening_beyond_loopback(process):
    return [
        (p.name(), c.laddr)
        for p in family(process)
        for c in p.net_connections(kind="inet")
        if c.status == psutil.CONN_LISTEN and c.laddr.ip.removeprefix("::ffff:") not in {"127.0.0.1", "::1"}
    ]


# After the first line Ray's own SIGTERM handler stands before ours; after the second the engine is loading.
@pytest.mark.parametrize("moment", ["Ray started", "edit store and vLLM's imports"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_leaves_nothing(tmp_path, tiny_model, number, moment):
    ports = ["--port", str(free_port()), "--admin-port", str(free_port())]
    store = ["--edit-store", f"sqlite:///{tmp_path / 'edits.db'}"]
    command = [
        sys.executable,
        "-m",
        "incomes_server.cli",
        "serve",
        str(tiny_model),
        *adapter_of(tiny_model),
        *ports,
        *store,
    ]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    await_log(tmp_path / "log", moment)
    processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(number)
    assert process.wait(90) == 0, (tmp_path / "log").read_text()[-2000:]
    assert_gone(processes)
