"""Admission: an edit that does not fit, or exceeds its project's quota, is refused before it is stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from incomes_server.auth.quotas import QuotaSource
from incomes_server.store.client import StoreClient
from incomes_server.store.counts import LabelUse, ProjectUse

from incomes_plugin.errors import PoolFull, QuotaExceeded
from incomes_plugin.pool.gists import room_for

if TYPE_CHECKING:
    from incomes_plugin.vllm.engine import EditEngine
    from incomes_plugin.vllm.status import EngineStatus

FRESH_S = 1.0
NOTHING = ProjectUse(0, 0)
_LENT = ""
"""Goes by this where projects are counted; no project has an empty name."""


class PoolRoom:
    """Keeps account of the pool's room: what the edits in the store need, and what edits need that are just being
    stored.

    An edit counts from its admission on, with the most room that its tokens can need and a spelling of ordinary size.
    Longer spellings (a text of words that are one token behind a space and six without it needs 2 % more room) find
    theirs in the eighth that no admission gives away. The pool's commit checks again: it refuses what does not fit and
    keeps the old state.
    """

    def __init__(self, engine: EditEngine, store: StoreClient, quotas: QuotaSource) -> None:
        self._engine = engine
        self._store = store
        self._quotas = quotas
        self._stored: dict[str, ProjectUse] = {}
        self._labelled: dict[str, LabelUse] = {}
        self._promised: dict[str, ProjectUse] = {}
        self._stored_meanwhile: dict[str, ProjectUse] = {}
        self._at = float("-inf")
        self._lock = asyncio.Lock()
        self._returned = asyncio.Event()

    @asynccontextmanager
    async def reserve(self, project: str, num_tokens: Sequence[int], *, replaces: int = 0) -> AsyncIterator[None]:
        """Hold room for edits of so many tokens each while the block stores them; it returns when the block fails.

        Args:
            replaces: tokens of the edit that the new one takes the place of. One that is no longer always has room.

        Raises:
            QuotaExceeded: names the project's use and limit.
            PoolFull: names the room and what is needed.
        """
        new = ProjectUse(len(num_tokens), sum(num_tokens))
        async with self._lock:
            await self._admit(project, new, replaces)
            self._promised[project] = self._promised.get(project, NOTHING) + new
        try:
            yield
            for counted in (self._stored, self._stored_meanwhile):
                counted[project] = counted.get(project, NOTHING) + new
        finally:
            self._promised[project] -= new

    async def admit_label(self, project: str, new: LabelUse, now: LabelUse) -> None:
        """Check that there is room for a label's state in place of the one that it has.

        Raises:
            QuotaExceeded, PoolFull: as `reserve` does.
        """
        needed = self._label_bytes(new) - self._label_bytes(now)
        if needed > 0:
            async with self._lock:
                await self._look()
                self._check_bytes(project, needed)

    def most_bytes(self, num_tokens: int) -> int:
        """Room that an edit of so many tokens can take."""
        return self._bytes(ProjectUse(1, num_tokens))

    async def check(self, project: str, num_tokens: int) -> None:
        """What `reserve` would say of one more edit, without holding anything. Raises QuotaExceeded, PoolFull."""
        async with self._lock:
            await self._admit(project, ProjectUse(1, num_tokens), 0)

    @asynccontextmanager
    async def lend(self, use: ProjectUse, *, wait: bool) -> AsyncIterator[None]:
        """Hold room for copies that go with the block, beside what is admitted; no project's quota counts them.

        Args:
            wait: for other copies to go, where these have the room. Whoever holds a copy must not wait for another.

        Raises:
            PoolFull: names the room and what is needed.
        """
        while not await self._lent(use, wait=wait):
            await self._returned.wait()
        try:
            yield
        finally:
            self._promised[_LENT] -= use
            self._returned.set()

    async def _lent(self, use: ProjectUse, *, wait: bool) -> bool:
        async with self._lock:
            self._returned.clear()
            await self._look()
            lent = self._promised.get(_LENT, NOTHING)
            try:
                self._check_room(self._quotas.of(_LENT).usable_bytes, self._bytes(use))
            except PoolFull:
                if not wait or lent == NOTHING:
                    raise
                return False
            self._promised[_LENT] = lent + use
            return True

    async def status(self) -> EngineStatus:
        """What the engine says of itself and its pool. Raises EngineLost."""
        return await self._engine.status()

    async def _admit(self, project: str, new: ProjectUse, replaces: int) -> None:
        if replaces and new.tokens <= replaces:
            return
        if time.monotonic() - self._at > FRESH_S:
            await self._look()
        try:
            self._check(project, new, replaces)
        except (QuotaExceeded, PoolFull):
            await self._look()  # some may have gone since
            self._check(project, new, replaces)

    def _check(self, project: str, new: ProjectUse, replaces: int) -> None:
        used = self._used_by(project)
        added = ProjectUse(new.edits - bool(replaces), new.tokens - replaces)
        self._quotas.of(project).check_edits(used.edits, added.edits)
        self._check_bytes(project, self._bytes(added))

    def _check_bytes(self, project: str, needed: int) -> None:
        quotas = self._quotas.of(project)
        quotas.check_bytes(self._bytes_of(project), needed)
        self._check_room(quotas.usable_bytes, needed)

    def _check_room(self, usable_bytes: int, needed: int) -> None:
        projects = self._stored.keys() | self._promised.keys() | self._labelled.keys()
        free = usable_bytes - sum(self._bytes_of(each) for each in projects)
        if needed > free:
            raise PoolFull(
                f"the engine's pool has room for {max(0, free)} more bytes of gists, {needed} are needed; "
                "retire edits, or start the server with a larger `pool_bytes`"
            )

    def _used_by(self, project: str) -> ProjectUse:
        return self._stored.get(project, NOTHING) + self._promised.get(project, NOTHING)

    async def _look(self) -> None:
        """Ask the store for its count. Edits stored meanwhile may be missing in the answer, so they are counted here
        too: some may count twice, none is left out."""
        self._stored_meanwhile = {}
        stored = await self._store.use_of_projects()
        self._labelled = await self._store.use_of_labels()
        for project, new in self._stored_meanwhile.items():
            stored[project] = stored.get(project, NOTHING) + new
        self._stored = stored
        self._at = time.monotonic()

    def _bytes_of(self, project: str) -> int:
        """All that a project takes or was promised."""
        return self._bytes(self._used_by(project)) + self._label_bytes(self._labelled.get(project, LabelUse()))

    def _label_bytes(self, use: LabelUse) -> int:
        """Route keys once more, and whole gists of edits that are no longer in the newest state."""
        if not use.edits:
            return 0
        only_keys = (use.tokens - use.left_tokens) * self._engine.adapter.shape.room_per_token
        return self._bytes(ProjectUse(use.edits, use.tokens)) - only_keys

    def _bytes(self, use: ProjectUse) -> int:
        return room_for(self._engine.adapter, self._engine.dtype, use.edits, use.tokens)
