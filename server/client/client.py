"""`Client` and `AsyncClient`: how a call is sent, a list read page by page, an answer of lines line by line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Self, TypeVar

import httpx
from incomes_server.api.admin.schemas import ResourceT
from incomes_server.client.calls import LONG_TIMEOUT_S, Call, LinesCall, ListCall
from incomes_server.client.resources import (
    AsyncAudit,
    AsyncBatches,
    AsyncEdits,
    AsyncEditSets,
    AsyncEvalRuns,
    AsyncFiles,
    AsyncKeys,
    AsyncLabels,
    AsyncProjects,
    AsyncReplicas,
    AsyncServerSwitch,
    AsyncSnapshots,
    Audit,
    Batches,
    Edits,
    EditSets,
    EvalRuns,
    Files,
    Keys,
    Labels,
    Projects,
    Replicas,
    ServerSwitch,
    Snapshots,
)
from incomes_server.client.sending import (
    HttpOutcome,
    error_of,
    form_of,
    no_answer,
    not_an_address,
    request_of,
    result_of,
    wait_before_retry,
)

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
        self.labels = Labels(self)
        self.snapshots = Snapshots(self)
        self.files = Files(self)
        self.batches = Batches(self)
        self.replicas = Replicas(self)
        self.eval_runs = EvalRuns(self)
        self.server = ServerSwitch(self)
        self.projects = Projects(self)
        self.keys = Keys(self)
        self.audit = Audit(self)

    def send(self, call: Call[T]) -> T:
        """Carry out a call, trying again what may succeed later."""
        with form_of(call.upload) as form:
            request = request_of(self._http, call, form)
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

    def lines(self, call: LinesCall) -> Iterator[str]:
        """An answer of JSONL, line by line. Raises what `send` raises; nothing is tried again."""
        params = {name: value for name, value in call.params.items() if value is not None}
        try:
            with self._http.stream("GET", call.path, params=params, timeout=LONG_TIMEOUT_S) as response:
                if response.is_error:
                    response.read()
                    raise error_of(response)
                yield from response.iter_lines()
        except httpx.TransportError as error:
            raise no_answer(error) from error

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
        self.labels = AsyncLabels(self)
        self.snapshots = AsyncSnapshots(self)
        self.files = AsyncFiles(self)
        self.batches = AsyncBatches(self)
        self.replicas = AsyncReplicas(self)
        self.eval_runs = AsyncEvalRuns(self)
        self.server = AsyncServerSwitch(self)
        self.projects = AsyncProjects(self)
        self.keys = AsyncKeys(self)
        self.audit = AsyncAudit(self)

    async def send(self, call: Call[T]) -> T:
        """Carry out a call, trying again what may succeed later."""
        with form_of(call.upload) as form:
            request = request_of(self._http, call, form)
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

    async def lines(self, call: LinesCall) -> AsyncIterator[str]:
        """An answer of JSONL, line by line. Raises what `send` raises; nothing is tried again."""
        params = {name: value for name, value in call.params.items() if value is not None}
        try:
            async with self._http.stream("GET", call.path, params=params, timeout=LONG_TIMEOUT_S) as response:
                if response.is_error:
                    await response.aread()
                    raise error_of(response)
                async for line in response.aiter_lines():
                    yield line
        except httpx.TransportError as error:
            raise no_answer(error) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _headers(api_key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {api_key}"} if api_key else {}
