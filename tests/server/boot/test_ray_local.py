"""Ray's life: refused when it would be exposed, gone after SIGTERM, shared when an address is given."""

import signal
import subprocess
import sys
import textwrap

import psutil
import pytest

from incomes_plugin.errors import NotReady

pytestmark = pytest.mark.ray

SERVER = """
import asyncio, signal, sys
from incomes_server.boot.actors import RaySettings
from incomes_server.boot.ray_local import prepare_ray_environment, ray_session

async def main(stop):
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print("up", flush=True)
    await stop.wait()

prepare_ray_environment()
with ray_session(RaySettings(sys.argv[1])):
    asyncio.run(main(asyncio.Event()))
"""

GUEST = """
import asyncio, sys
from pathlib import Path
from incomes_server.boot.actors import RaySettings
from incomes_server.boot.ray_local import ray_session
from incomes_server.store.client import StoreClient

async def main(namespace):
    store = await StoreClient.connect(namespace)
    print((await store.ensure_edit_set("guest", "default")).id)

url, address, namespace, temp_dir = sys.argv[1:]
with ray_session(RaySettings(url, address=address, namespace=namespace)):
    asyncio.run(main(namespace))
"""


BUSY = """
import sys
from incomes_server.boot.actors import RaySettings
from incomes_server.boot.ray_local import prepare_ray_environment, ray_session

prepare_ray_environment()
import ray

start, calls = ray.init, []

def init(**how):
    calls.append(start(**how))
    if len(calls) == 1:
        raise Exception("The current node timed out during startup.")

ray.init = init
with ray_session(RaySettings(sys.argv[1])):
    print("up", len(calls))
"""


def python(code, *args, **how):
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)


def test_a_terminated_server_leaves_no_process_of_ray(tmp_path):
    server = python(SERVER, f"sqlite:///{tmp_path}/edits.db")
    assert server.stdout.readline() == "up\n", server.stderr.read()
    children = psutil.Process(server.pid).children(recursive=True)
    assert any("raylet" in child.name() for child in children)
    server.send_signal(signal.SIGTERM)
    _, errors = server.communicate(timeout=60)
    assert server.returncode == 0, errors
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []


def test_ray_that_was_imported_too_early_is_refused(tmp_path):
    code = f"""
    import os
    os.environ.pop("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", None)
    import ray
    from incomes_server.boot.actors import RaySettings
    from incomes_server.boot.ray_local import start_ray
    start_ray(RaySettings("sqlite:///{tmp_path}/edits.db"))
    """
    process = python(code)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"{NotReady.__name__}: Ray was imported before prepare_ray_environment()" in errors


def test_a_start_that_took_ray_too_long_is_repeated(tmp_path):
    process = python(BUSY, f"sqlite:///{tmp_path}/edits.db")
    output, errors = process.communicate(timeout=300)
    assert (process.returncode, output.splitlines()[-1:]) == (0, ["up 2"]), errors


async def test_another_process_joins_by_address_and_leaves_the_cluster_alone(stack):
    import ray

    settings = stack.settings
    address = ray.get_runtime_context().gcs_address
    guest = python(GUEST, settings.database_url, address, settings.namespace, settings.temp_dir)
    output, errors = guest.communicate(timeout=90)
    assert guest.returncode == 0, errors
    assert (await stack.store.get_edit_set("guest", "default")).id == output.strip().splitlines()[-1]
