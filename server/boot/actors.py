"""The store and the scheduler as named actors: found in a cluster where others run them, or created."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from incomes_server.auth.master_key import MasterKey, MasterSource
from incomes_server.compression import client as compression_client
from incomes_server.compression.model import QueueLimits
from incomes_server.store import calls as store_calls
from incomes_server.store.ray_call import find_actor
from incomes_server.store.terms import ANY_TERMS, StoreTerms

from incomes_plugin.errors import IncomesError, InvalidValue, NotReady

START_TIMEOUT_S = 120.0
MAX_CALLS = 10_000
OBJECT_STORE_BYTES = 100 * 1024 * 1024


@dataclass(frozen=True)
class RaySettings:
    """How to run Ray.

    Attributes:
        database_url: SQLAlchemy URL of the store, e.g. `sqlite:////var/lib/incomes/edits.db`.
        address: address of a running cluster; None starts a local one that ends with this process.
        namespace: holds the actors' names.
        node_ip: of the Ray node, on this machine, that this process belongs to; it ends with that node.
        join: the actors must be there already.
        terms: what the servers of one store agree on.
        gist_storage: URL of the object storage for gists; None = they are in the database.
        temp_dir: for Ray's sockets and logs; must be short (UNIX socket paths end at 107 bytes).
        master_source: where the store's process finds `masters` itself, so that Ray never has them.
    """

    database_url: str
    address: str | None = None
    token: str | None = field(default=None, repr=False)
    namespace: str = "incomes"
    node_ip: str | None = None
    num_cpus: int = 2
    object_store_bytes: int = OBJECT_STORE_BYTES
    temp_dir: Path | None = None
    limits: QueueLimits = field(default_factory=QueueLimits)
    masters: tuple[MasterKey, ...] = ()
    master_source: MasterSource | None = None
    join: bool = False
    terms: StoreTerms = ANY_TERMS
    gist_storage: str | None = None

    @property
    def masters_of_the_actor(self) -> tuple[MasterKey, ...] | MasterSource:
        """In a cluster the actor may run on a machine without that file or command."""
        return self.masters if self.address is not None or self.master_source is None else self.master_source


def create_actors(settings: RaySettings) -> None:
    """Find or create the store and the scheduler in the namespace, and wait until both answer.

    Raises:
        InvalidValue: the store that runs has other terms, and engines that serve.
        NotReady: they do not answer, or there are none and this server only joins.
    """
    from incomes_server.compression.scheduler import SchedulerActor
    from incomes_server.store.actor import EditStoreActor
    from incomes_server.store.core import EditStore
    from incomes_server.store.counts import count

    if not _agrees(settings):
        # A database that cannot be opened, or a storage that fails, is reported here, with its own error.
        store = EditStore(settings.database_url, masters=settings.masters, gist_storage=settings.gist_storage)
        with closing(store):
            store.probe_storage()
    how = {"masters": settings.masters_of_the_actor, "terms": settings.terms, "gist_storage": settings.gist_storage}
    actor = _actor(EditStoreActor, store_calls.ACTOR_NAME, settings, settings.database_url, **how)
    scheduler = _actor(SchedulerActor, compression_client.ACTOR_NAME, settings, settings.namespace, settings.limits)
    _answer([actor.agree.remote(settings.terms), actor.read.remote(count), scheduler.stats.remote()])


def _agrees(settings: RaySettings) -> bool:
    """Whether a store runs that this server may join. One of other terms is ended if no engine serves from it."""
    try:
        store = find_actor(store_calls.ACTOR_NAME, settings.namespace)
    except NotReady as error:
        if settings.join:
            raise NotReady(
                f"no edit store runs in the namespace {settings.namespace!r} of the Ray cluster at {settings.address}: "
                "start a server with `ray_address` and `edit_store` first, then those that join"
            ) from error
        return False
    try:
        _answer([store.agree.remote(settings.terms)])
    except InvalidValue:
        if settings.join or any(replica.serving for replica in _answer([store.replicas.remote()])[0]):
            raise
        for name in (compression_client.ACTOR_NAME, store_calls.ACTOR_NAME):
            _ray().kill(find_actor(name, settings.namespace), no_restart=True)
        return False
    return True


def _answer(calls: Sequence[Any]) -> list[Any]:
    """The answers of actors, or the error that one raised."""
    ray = _ray()
    try:
        found: list[Any] = ray.get(list(calls), timeout=START_TIMEOUT_S)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, IncomesError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise NotReady(f"the edit store's actors do not answer: {type(error).__name__}: {error}") from error
    return found


def _actor(cls: type, name: str, settings: RaySettings, *args: Any, **kwargs: Any) -> Any:
    """A named actor that Ray restarts for ever. Ray sends its calls again after a restart, so calling a method twice
    must do no harm."""
    options: dict[str, Any] = {"name": name, "namespace": settings.namespace, "get_if_exists": True}
    options |= {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": MAX_CALLS}
    return _ray().remote(cls).options(lifetime="detached", **options).remote(*args, **kwargs)


def _ray() -> Any:
    import ray

    return ray
