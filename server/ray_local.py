"""Ray for the control plane: start it on loopback (or join a cluster), create the two named actors, stop it cleanly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from incomes_server.compression.model import QueueLimits

OBJECT_STORE_BYTES = 100 * 1024 * 1024


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


@contextmanager
def ray_session(settings: RaySettings) -> Iterator[None]:
    """`start_ray` on entry, `stop_ray` on exit."""
    start_ray(settings)
    try:
        yield
    finally:
        stop_ray(settings)


def start_ray(settings: RaySettings) -> None:
    """Start or join Ray and create the two actors."""
    raise NotImplementedError


def stop_ray(settings: RaySettings) -> None:
    """Leave no process of ours behind."""
    raise NotImplementedError
