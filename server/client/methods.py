"""A function of `calls.py` as a method of a resource: calling it sends the call by the resource's client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

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
    """A function that makes a call, as a method that sends it; of an `AsyncGroup` it is to be awaited."""

    def __init__(self, make: Callable[P, Call[T]]) -> None:
        self.make = make

    @overload
    def __get__(self, group: Group, owner: Any = None) -> Callable[P, T]: ...
    @overload
    def __get__(self, group: AsyncGroup, owner: Any = None) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, group: Any, owner: Any = None) -> Any:
        """The method of one client."""
        return lambda *args, **kwargs: group.client.send(self.make(*args, **kwargs))


class ListMethod(Generic[P, ResourceT]):
    """A function that makes the call of a list, as a method that iterates over its items."""

    def __init__(self, make: Callable[P, ListCall[ResourceT]]) -> None:
        self.make = make

    @overload
    def __get__(self, group: Group, owner: Any = None) -> Callable[P, Iterator[ResourceT]]: ...
    @overload
    def __get__(self, group: AsyncGroup, owner: Any = None) -> Callable[P, AsyncIterator[ResourceT]]: ...
    def __get__(self, group: Any, owner: Any = None) -> Any:
        """The method of one client."""
        return lambda *args, **kwargs: group.client.items(self.make(*args, **kwargs))


class LinesMethod(Generic[P]):
    """A function that makes the call of an answer of JSONL, as a method that iterates over its lines."""

    def __init__(self, make: Callable[P, LinesCall]) -> None:
        self.make = make

    @overload
    def __get__(self, group: Group, owner: Any = None) -> Callable[P, Iterator[str]]: ...
    @overload
    def __get__(self, group: AsyncGroup, owner: Any = None) -> Callable[P, AsyncIterator[str]]: ...
    def __get__(self, group: Any, owner: Any = None) -> Any:
        """The method of one client."""
        return lambda *args, **kwargs: group.client.lines(self.make(*args, **kwargs))
