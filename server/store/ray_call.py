"""Calls of an actor: find it by name, await its answer, and raise the error that it raised, without Ray's wrapper."""

from __future__ import annotations

from typing import Any

from incomes_plugin.errors import IncomesError, NotReady


def find_actor(name: str, namespace: str) -> Any:
    """Handle of a named actor.

    Raises:
        NotReady: Ray does not run here, or has no such actor.
    """
    import ray

    try:
        return ray.get_actor(name, namespace=namespace)
    except (ValueError, ray.exceptions.RayError) as error:
        raise NotReady(f"no actor {name!r} in namespace {namespace!r}: {error}") from error


async def call(answer: Any) -> Any:
    """Await a reference.

    Raises:
        IncomesError: the same one the actor raised.
        NotReady: the actor is gone for good, or Ray is.
    """
    from ray.exceptions import RayError, RayTaskError

    try:
        return await answer
    except RayTaskError as error:
        if isinstance(error.cause, IncomesError):
            raise error.cause from None
        raise
    except RayError as error:
        raise NotReady(f"{type(error).__name__}: {error}") from error
