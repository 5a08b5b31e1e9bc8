"""Ray for the control plane: start it on loopback, or join a cluster; stop it cleanly."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from incomes_server.boot.actors import RaySettings, create_actors
from incomes_server.settings import is_loopback

from incomes_plugin.errors import NotReady

logger = logging.getLogger("incomes.ray")

START_ATTEMPTS = 3
STOP_TIMEOUT_S = 20.0

LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
ENVIRONMENT = {
    # Keeps every socket of core Ray on 127.0.0.1, on Linux too in spite of its name. Ray reads it when imported.
    LOOPBACK_ONLY: "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray would report every call of an actor to its control store, which keeps the last 100,000: 44 MB in ten minutes.
    "RAY_task_events_report_interval_ms": "0",
}


@contextmanager
def ray_session(settings: RaySettings) -> Iterator[None]:
    """`start_ray` on entry, `stop_ray` on exit."""
    start_ray(settings)
    try:
        yield
    finally:
        stop_ray()


def prepare_ray_environment(address: str | None = None, token: str | None = None) -> None:
    """Must run before anything imports Ray (vLLM does): Ray reads all of this when it is imported.

    Args:
        address: of the cluster that the process will join; None = it will start one of its own. Then a fresh token is
            made that only this server's processes know, so that other users of the machine cannot run code in it.
        token: of the cluster; None = what Ray finds by itself, in its own variables and file.
    """
    stays_here = address is None or is_loopback(address.rpartition(":")[0])
    for name, value in ENVIRONMENT.items():
        if stays_here or name != LOOPBACK_ONLY:
            os.environ.setdefault(name, value)
    if address is None:
        token = os.environ.get("RAY_AUTH_TOKEN", secrets.token_hex(32))
    if token is not None:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = token


def import_ray(settings: RaySettings) -> None:
    """Import Ray, which the threads of a start then share. Two that import it at once may see half of it: it refers to
    its own parts while it is imported."""
    prepare_ray_environment(settings.address, settings.token)
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
        _join_cluster(settings)
    try:
        create_actors(settings)
    except BaseException:
        stop_ray()
        raise


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


def _join_cluster(settings: RaySettings) -> None:
    try:
        _ray().init(
            address=settings.address,
            namespace=settings.namespace,
            log_to_driver=False,
            logging_level="error",
            _node_ip_address=settings.node_ip,
        )
    except Exception as error:  # Ray has no class of its own for this
        raise NotReady(
            f"the Ray cluster at {settings.address} cannot be joined: {type(error).__name__}: {error}; check "
            "`ray_address` and `ray_token`, and that a node of it runs on this machine"
        ) from error


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
