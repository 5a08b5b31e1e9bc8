"""Ray for the control plane: start it on loopback (or join a cluster), create the two named actors, stop it cleanly."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from incomes_server.auth.master_key import MasterKey
from incomes_server.compression import client as compression_client
from incomes_server.compression.model import QueueLimits
from incomes_server.settings import is_loopback
from incomes_server.store import calls as store_calls

from incomes_plugin.errors import NotReady

logger = logging.getLogger("incomes.ray")

OBJECT_STORE_BYTES = 100 * 1024 * 1024
START_TIMEOUT_S = 120.0
START_ATTEMPTS = 3
STOP_TIMEOUT_S = 20.0
MAX_CALLS = 10_000

ENVIRONMENT = {
    # Keeps every socket of core Ray on 127.0.0.1, on Linux too in spite of its name. Ray reads it when imported.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray would report every call of an actor to its control store, which keeps the last 100,000: 44 MB in ten minutes.
    "RAY_task_events_report_interval_ms": "0",
}


@dataclass(frozen=True)
class RaySettings:
    """How to run Ray.

    Attributes:
        database_url: SQLAlchemy URL of the store, e.g. `sqlite:////var/lib/incomes/edits.db`.
        address: address of a running cluster; None starts a local one that ends with this process.
        namespace: holds the actors' names.
        temp_dir: for Ray's sockets and logs; must be short (UNIX socket paths end at 107 bytes).
    """

    database_url: str
    address: str | None = None
    namespace: str = "incomes"
    num_cpus: int = 2
    object_store_bytes: int = OBJECT_STORE_BYTES
    temp_dir: Path | None = None
    limits: QueueLimits = field(default_factory=QueueLimits)
    masters: tuple[MasterKey, ...] = ()


@contextmanager
def ray_session(settings: RaySettings) -> Iterator[None]:
    """`start_ray` on entry, `stop_ray` on exit."""
    start_ray(settings)
    try:
        yield
    finally:
        stop_ray()


def prepare_ray_environment(*, local: bool = True) -> None:
    """Must run before anything imports Ray (vLLM does): Ray reads all of this when it is imported.

    Args:
        local: the process will start a cluster of its own. Then a fresh token is made that only this server's processes
        know, so that other users of the machine cannot run code in the cluster.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if local:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def import_ray() -> None:
    """Import Ray, which the threads of a start then share. Two that import it at once may see half of it: it refers to
    its own parts while it is imported."""
    prepare_ray_environment()
    _ray()


def start_ray(settings: RaySettings) -> None:
    """Start or join Ray and create the two actors. Signal handlers are to be installed after this call.

    Raises:
        NotReady: Ray was imported too early, listens beyond loopback, or an actor does not come up; the database
            belongs to a newer version.
    """
    if settings.address is None:
        _start_local(settings)
    else:
        _ray().init(address=settings.address, namespace=settings.namespace, log_to_driver=False, logging_level="error")
    try:
        create_actors(settings)
    except BaseException:
        stop_ray()
        raise


def create_actors(settings: RaySettings) -> None:
    """Get or create the store and the scheduler in the namespace, and wait until both answer."""
    from incomes_server.compression.scheduler import SchedulerActor
    from incomes_server.store.actor import EditStoreActor
    from incomes_server.store.core import EditStore
    from incomes_server.store.counts import count

    # A database that cannot be opened is reported here, with its own error.
    EditStore(settings.database_url, masters=settings.masters).close()
    store = _actor(EditStoreActor, store_calls.ACTOR_NAME, settings, settings.database_url, masters=settings.masters)
    scheduler = _actor(SchedulerActor, compression_client.ACTOR_NAME, settings, settings.namespace, settings.limits)
    ray = _ray()
    try:
        ray.get([store.read.remote(count), scheduler.stats.remote()], timeout=START_TIMEOUT_S)
    except ray.exceptions.RayError as error:
        raise NotReady(f"the edit store's actors do not answer: {type(error).__name__}: {error}") from error


def stop_ray() -> None:
    """Disconnect; a local cluster ends, and no process of it is left.

    Raises:
        NotReady: some process survived even SIGKILL.
    """
    import psutil

    ray = _ray()
    children = [child for child in psutil.Process().children(recursive=True) if _is_ray(child)]
    ray.shutdown()
    _, alive = psutil.wait_procs(children, timeout=STOP_TIMEOUT_S)
    for child in alive:
        logger.warning("process %d of Ray did not stop by itself; killing it", child.pid)
        child.kill()
    _, alive = psutil.wait_procs(alive, timeout=STOP_TIMEOUT_S)
    if alive:
        raise NotReady(f"processes of Ray survive: {[child.pid for child in alive]}")


def listening_beyond_loopback() -> list[str]:
    """Sockets of this process's Ray children that other machines could reach."""
    import psutil

    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if _is_ray(process):
                found += [
                    f"{process.name()} ({process.pid}) on {c.laddr.ip}:{c.laddr.port}"
                    for c in process.net_connections(kind="inet")
                    if c.status == psutil.CONN_LISTEN and not is_loopback(c.laddr.ip)
                ]
        except psutil.NoSuchProcess:
            continue
    return found


def _start_local(settings: RaySettings) -> None:
    prepare_ray_environment()
    ray = _ray()
    if ray._private.ray_constants.ENABLE_RAY_CLUSTER:
        raise NotReady("Ray was imported before prepare_ray_environment() and would listen on all interfaces")
    start_s = time.monotonic()
    _init_local(settings)
    logger.info("Ray started in %.1f s", time.monotonic() - start_s)
    if exposed := listening_beyond_loopback():
        stop_ray()
        raise NotReady(f"Ray listens beyond loopback: {', '.join(exposed)}")


def _init_local(settings: RaySettings) -> None:
    """Start a cluster. Ray gives its processes 30 s to start. On a busy machine that may not be enough; then they are
    started again."""
    reason = ""
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            _ray().init(
                address="local",
                namespace=settings.namespace,
                num_cpus=settings.num_cpus,
                num_gpus=0,
                object_store_memory=settings.object_store_bytes,
                include_dashboard=False,
                configure_logging=False,
                log_to_driver=False,
                _temp_dir=None if settings.temp_dir is None else str(settings.temp_dir),
            )
            return
        except Exception as error:  # noqa: BLE001 - Ray has no class of its own for this
            reason = f"{type(error).__name__}: {error}"
            logger.warning("attempt %d of %d: Ray does not start: %s", attempt, START_ATTEMPTS, reason)
            stop_ray()
    raise NotReady(f"Ray does not start on this machine, which may be too busy: {reason}")


def _actor(cls: type, name: str, settings: RaySettings, *args: Any, **kwargs: Any) -> Any:
    """A named actor that Ray restarts for ever. Ray sends its calls again after a restart, so calling a method twice
    must do no harm."""
    options: dict[str, Any] = {"name": name, "namespace": settings.namespace, "get_if_exists": True}
    options |= {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": MAX_CALLS}
    return _ray().remote(cls).options(lifetime="detached", **options).remote(*args, **kwargs)


def _is_ray(process: Any) -> bool:
    """Ray's own processes, by command line; the engine's children of the same parent are not ours to judge."""
    import psutil

    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "/ray/" in line or "ray::" in line or "raylet" in line or "gcs_server" in line


def _ray() -> Any:
    import ray

    return ray
