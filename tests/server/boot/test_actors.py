"""The first server's terms are the store's: others agree, are refused, or take over when no engine serves any more."""

import asyncio
import uuid
from dataclasses import replace

import pytest
from incomes_server.boot.actors import create_actors
from incomes_server.compression.client import ACTOR_NAME as SCHEDULER
from incomes_server.store.calls import ACTOR_NAME as STORE
from incomes_server.store.client import StoreClient
from incomes_server.store.ray_call import find_actor
from incomes_server.store.terms import StoreTerms

from incomes_plugin.errors import InvalidValue, NotReady

pytestmark = pytest.mark.ray

ONE, OTHER = (StoreTerms((("pool_bytes", size),)) for size in ("1", "2"))


@pytest.fixture
def settings(local_ray, tmp_path):
    import ray

    namespace = f"test-{uuid.uuid4().hex[:8]}"
    url = f"sqlite:///{tmp_path}/edits.db"
    yield replace(local_ray, database_url=url, namespace=namespace, address="of-the-session", terms=ONE)
    for name in (SCHEDULER, STORE):
        try:
            ray.kill(find_actor(name, namespace))
        except NotReady:
            continue


def test_one_that_only_joins_needs_a_store(settings):
    with pytest.raises(NotReady, match="no edit store runs in the namespace"):
        create_actors(replace(settings, join=True))
    create_actors(settings)
    create_actors(replace(settings, join=True, database_url="unused"))


def test_other_terms_are_refused_while_engines_serve_and_then_count(settings):
    async def as_replica(serving):
        store = await StoreClient.connect(settings.namespace)
        await store.ensure_edit_set("acme", "default")
        await (store.poll("engine", {}, timeout_s=0) if serving else store.leave("engine"))
        return await store.get_edit_set("acme", "default")

    create_actors(settings)
    before = asyncio.run(as_replica(True))
    for joins in (False, True):
        with pytest.raises(InvalidValue, match="pool_bytes is 2 here, and 1 at the edit store"):
            create_actors(replace(settings, terms=OTHER, join=joins))
    asyncio.run(as_replica(False))
    with pytest.raises(InvalidValue):
        create_actors(replace(settings, terms=OTHER, join=True))
    create_actors(replace(settings, terms=OTHER))
    assert asyncio.run(as_replica(True)) == before, "the store is another process, the database is the same"
    with pytest.raises(InvalidValue, match="pool_bytes is 1 here, and 2 at"):
        create_actors(settings)
