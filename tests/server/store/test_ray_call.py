"""Errors on their way through Ray."""

import asyncio
import contextlib
import pickle

import pytest
from incomes_server.store.ray_call import call

from incomes_plugin import errors

ALL = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.IncomesError)]


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_every_error_survives_pickling(cls):
    error = cls("what happened", param="text")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.__dict__) == (cls, "what happened", error.__dict__)


def test_the_time_to_wait_survives_too():
    assert pickle.loads(pickle.dumps(errors.QueueFull("full", retry_after_s=7))).retry_after_s == 7


async def call_until_it_is_gone(actor):
    """A kill is asynchronous: on a busy machine a call may still reach the actor."""
    while True:
        with contextlib.suppress(ZeroDivisionError):
            await call(actor.fail.remote())
        await asyncio.sleep(0.05)


@pytest.mark.ray
async def test_a_dead_actor_is_not_ready_and_a_bug_is_no_answer(local_ray):
    import ray

    class Actor:
        async def fail(self):
            raise ZeroDivisionError

    actor = ray.remote(Actor).options(num_cpus=0).remote()
    with pytest.raises(ZeroDivisionError):
        await call(actor.fail.remote())
    ray.kill(actor)
    with pytest.raises(errors.NotReady):
        await call_until_it_is_gone(actor)
