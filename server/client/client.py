"""`Client` and `AsyncClient`. A method of a resource is its function in `calls.py`, sent by the client it hangs on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from typing import Any, Generic, ParamSpec, Self, TypeVar

import httpx
from incomes_server.api.admin.schemas import ResourceT
from incomes_server.client import calls
from incomes_server.client.calls import Call, ListCall
from incomes_server.client.sending import HttpOutcome, not_an_address, request_of, result_of, wait_before_retry

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8001"
RETRIES = 2


class Client:
    """The admin API, call by call. Errors are those of `incomes_plugin.errors`; a write that is tried again happens
    once."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        retries: int = RETRIES,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Raises InvalidValue: the address is none."""
        self.retries = retries
        try:
            self._http = httpx.Client(base_url=url, headers=_headers(api_key), transport=transport)
        except httpx.InvalidURL as error:
            raise not_an_address(url, error) from error
        self.edits = Edits(self)
        self.edit_sets = EditSets(self)
        self.replicas = Replicas(self)

    def send(self, call: Call[T]) -> T:
        """Carry out a call, trying again what may succeed later."""
        request = request_of(self._http, call)
        for attempt in count():
            outcome: HttpOutcome
            try:
                outcome = self._http.send(request)
            except httpx.TransportError as error:
                outcome = error
            wait_s = wait_before_retry(outcome, attempt, self.retries)
            if wait_s is None:
                break
            time.sleep(wait_s)
        return result_of(call, outcome)

    def items(self, listed: ListCall[ResourceT]) -> Iterator[ResourceT]:
        """The items of a list, its pages fetched as they are needed."""
        after, seen, has_more = None, 0, True
        while has_more and (call := listed.page(after, seen)):
            page = self.send(call)
            yield from page.data
            after, seen, has_more = page.last_id, seen + len(page.data), page.has_more

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient:
    """`Client` for asyncio: the same methods, to be awaited; lists are async iterators."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        retries: int = RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Raises InvalidValue: the address is none."""
        self.retries = retries
        try:
            self._http = httpx.AsyncClient(base_url=url, headers=_headers(api_key), transport=transport)
        except httpx.InvalidURL as error:
            raise not_an_address(url, error) from error
        self.edits = AsyncEdits(self)
        self.edit_sets = AsyncEditSets(self)
        self.replicas = AsyncReplicas(self)

    async def send(self, call: Call[T]) -> T:
        """Carry out a call, trying again what may succeed later."""
        request = request_of(self._http, call)
        for attempt in count():
            outcome: HttpOutcome
            try:
                outcome = await self._http.send(request)
            except httpx.TransportError as error:
                outcome = error
            wait_s = wait_before_retry(outcome, attempt, self.retries)
            if wait_s is None:
                break
            await asyncio.sleep(wait_s)
        return result_of(call, outcome)

    async def items(self, listed: ListCall[ResourceT]) -> AsyncIterator[ResourceT]:
        """The items of a list, its pages fetched as they are needed."""
        after, seen, has_more = None, 0, True
        while has_more and (call := listed.page(after, seen)):
            page = await self.send(call)
            for item in page.data:
                yield item
            after, seen, has_more = page.last_id, seen + len(page.data), page.has_more

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Group:
    """Methods of one resource on a `Client`."""

    def __init__(self, client: Client) -> None:
        self.client = client


class AsyncGroup:
    """Methods of one resource on an `AsyncClient`."""

    def __init__(self, client: AsyncClient) -> None:
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


class Edits(Group):
    """/v1/edits."""

    add, get, list = ApiMethod(calls.add_edit), ApiMethod(calls.get_edit), ListMethod(calls.list_edits)
    replace, retire, import_lines = (
        ApiMethod(calls.replace_edit),
        ApiMethod(calls.retire_edit),
        ApiMethod(calls.import_edits),
    )


class AsyncEdits(AsyncGroup):
    """/v1/edits."""

    add, get, list = AsyncMethod(calls.add_edit), AsyncMethod(calls.get_edit), AsyncListMethod(calls.list_edits)
    replace, retire = AsyncMethod(calls.replace_edit), AsyncMethod(calls.retire_edit)
    import_lines = AsyncMethod(calls.import_edits)


class EditSets(Group):
    """/v1/edit_sets."""

    create, get = ApiMethod(calls.create_edit_set), ApiMethod(calls.get_edit_set)
    list, delete = ListMethod(calls.list_edit_sets), ApiMethod(calls.delete_edit_set)


class AsyncEditSets(AsyncGroup):
    """/v1/edit_sets."""

    create, get = AsyncMethod(calls.create_edit_set), AsyncMethod(calls.get_edit_set)
    list, delete = AsyncListMethod(calls.list_edit_sets), AsyncMethod(calls.delete_edit_set)


class Replicas(Group):
    """/v1/replicas."""

    list = ApiMethod(calls.list_replicas)


class AsyncReplicas(AsyncGroup):
    """/v1/replicas."""

    list = AsyncMethod(calls.list_replicas)


def _headers(api_key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {api_key}"} if api_key else {}
