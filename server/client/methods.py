"""A function of `calls.py` as a method of a resource: calling it sends the call by the resource's client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from incomes_server.api.admin.schemas import ResourceT
from incomes_server.client.calls import Call, LinesCall, ListCall

P = ParamSpec("P")
T = TypeVar("T")


class Sends(Protocol):
    """What a synchronous client can do."""

    def send(self, call: Call[T]) -> T:
        """Carry out a call."""

    def items(self, listed: ListCall[ResourceT]) -> Iterator[ResourceT]:
        """The items of a list."""

    def lines(self, call: LinesCall) -> Iterator[str]:
        """The lines of an answer."""


class AsyncSends(Protocol):
    """What an asynchronous client can do."""

    async def send(self, call: Call[T]) -> T:
        """Carry out a call."""

    def items(self, listed: ListCall[ResourceT]) -> AsyncIterator[ResourceT]:
        """The items of a list."""

    def lines(self, call: LinesCall) -> AsyncIterator[str]:
        """The lines of an answer."""


class Group:
    """Methods of one resource on a client."""

    def __init__(self, client: Sends) -> None:
        self.client = client


class AsyncGroup:
    """Methods of one resource on an asynchronous client."""

    def __init__(self, client: AsyncSends) -> None:
        self.client = client


class ApiMethod(Generic[P, T]):
    """A function that makes a call, as a method that sends it."""

    def __init__(self, make: Callable[P, Call[T]]) -> None:
        self.make = make

    def __get__(self, group: Group, _: Any = None) -> Callable[P, T]:
        return lambda *args, **kwargs: group.client.send(self.make(*args, **kwargs))


class ListMethod(Generic[P, ResourceT]):
    """A function that makes the call of a list, as a method that iterates over its items."""

    def __init__(self, make: Callable[P, ListCall[ResourceT]]) -> None:
        self.make = make

    def __get__(self, group: Group, _: Any = None) -> Callable[P, Iterator[ResourceT]]:
        return lambda *args, **kwargs: group.client.items(self.make(*args, **kwargs))


class AsyncMethod(Generic[P, T]):
    """`ApiMethod`, to be awaited."""

    def __init__(self, make: Callable[P, Call[T]]) -> None:
        self.make = make

    def __get__(self, group: AsyncGroup, _: Any = None) -> Callable[P, Awaitable[T]]:
        return lambda *args, **kwargs: group.client.send(self.make(*args, **kwargs))


class AsyncListMethod(Generic[P, ResourceT]):
    """`ListMethod`, as an async iterator."""

    def __init__(self, make: Callable[P, ListCall[ResourceT]]) -> None:
        self.make = make

    def __get__(self, group: AsyncGroup, _: Any = None) -> Callable[P, AsyncIterator[ResourceT]]:
        return lambda *args, **kwargs: group.client.items(self.make(*args, **kwargs))


class LinesMethod(Generic[P]):
    """A function that makes the call of an answer of JSONL, as a method that iterates over its lines."""

    def __init__(self, make: Callable[P, LinesCall]) -> None:
        self.make = make

    def __get__(self, group: Group, _: Any = None) -> Callable[P, Iterator[str]]:
        return lambda *args, **kwargs: group.client.lines(self.make(*args, **kwargs))


class AsyncLinesMethod(Generic[P]):
    """`LinesMethod`, as an async iterator."""

    def __init__(self, make: Callable[P, LinesCall]) -> None:
        self.make = make

    def __get__(self, group: AsyncGroup, _: Any = None) -> Callable[P, AsyncIterator[str]]:
        return lambda *args, **kwargs: group.client.lines(self.make(*args, **kwargs))
