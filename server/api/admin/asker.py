"""Asks the serving engine as the chat port does, under any state of an edit set: for previews and evaluations.

A state that the engine does not hold is copied from the store into a scratch set of the engine, which nobody else can
name, and goes again with the block. Questions go through vLLM's own chat route, so the answers are those of the port,
but for those of verbatim edits: what is tried is what is generated.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import httpx
from incomes_server.api.admin.pool_room import PoolRoom
from incomes_server.store.client import StoreClient
from incomes_server.store.counts import ProjectUse

from incomes_plugin.errors import CompressionFailed, EditsDisabled, InvalidValue, NotReady, SelectionFailed
from incomes_plugin.gist.edit import Captured, CaptureJob, EditKey, EditKind, FoundConflict
from incomes_plugin.pool.snapshot import SnapshotDelta, SnapshotRef, label_key

if TYPE_CHECKING:
    from incomes_plugin.vllm.engine import EditEngine

CHAT = "/v1/chat/completions"
AT_ONCE = 8
"""Questions that the engine is asked at once, by all trials together."""
OF_ONE_TRIAL = 4
"""Of one trial: another one's next question waits for few of them, however many are left."""
EDITS_PER_COMMIT = 256
MAX_COPIED = 20_000
"""Edits of a state that may be copied: the copy takes its time and the pool's room."""
EVALUATION_TIMEOUT_S = 600.0
SCRATCH_EDIT = "edit_preview"


@dataclass(frozen=True)
class StateAnswer:
    """An answer, and the edits that it read: ids with their weights, the heaviest first."""

    text: str
    applied: tuple[tuple[str, float], ...]

    def weight_of(self, edit_id: str) -> float:
        """How much of the answer an edit made."""
        return sum(weight for edit, weight in self.applied if edit == edit_id)


class StateAsker:
    """One for the server. A project tries one thing at a time; projects try beside one another."""

    def __init__(self, app: Any, engine: EditEngine, store: StoreClient, room: PoolRoom, model: str) -> None:
        self._app = app
        self._engine = engine
        self._store = store
        self._room = room
        self._model = model
        self._room_to_ask = asyncio.Semaphore(AT_ONCE)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, project: str) -> AsyncIterator[None]:
        """Wait until nothing else of the project is tried. Raises EditsDisabled: the server is switched off."""
        lock = self._turns.setdefault(project, asyncio.Lock())
        async with lock:
            _check_on(None if await self._store.is_server_on() else "server")
            yield

    async def ask(
        self, questions: Sequence[str], snapshot: SnapshotRef, max_tokens: int, *, force: bool = False
    ) -> list[StateAnswer]:
        """Greedy answers under a state, in order. `force`: read the likeliest edits, whether they apply or not.

        Raises:
            EditsDisabled: a switch takes all edits from the set; the chat port would answer without them.
        """
        mine, salt = asyncio.Semaphore(OF_ONE_TRIAL), secrets.token_hex(16)
        transport = httpx.ASGITransport(app=self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=None) as client:

            async def one(question: str) -> StateAnswer:
                async with mine, self._room_to_ask:
                    _check_on(self._engine.off(snapshot.edit_set))
                    return await self._one(client, question, snapshot, max_tokens, salt, force)

            held = self._engine.hold(snapshot) if snapshot.num_edits else nullcontext()
            try:
                with held:
                    async with asyncio.TaskGroup() as asking:
                        answers = [asking.create_task(one(question)) for question in questions]
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from failed
            return [answer.result() for answer in answers]

    async def conflicts(
        self, edit_set: str, token_ids: Sequence[int], kind: EditKind
    ) -> tuple[FoundConflict, ...] | None:
        """What an edit of this kind and these tokens is in conflict with in the newest state that the engine has of a
        set; None where that cannot be said. Raises CompressionFailed."""
        captured = await self._capture(token_ids, kind)
        (told,) = await self._engine.compare(edit_set, [captured], [])
        return None if told.compared is None else told.compared.found

    @asynccontextmanager
    async def copied(
        self, snapshot: SnapshotRef, *, added: Sequence[int] = (), without: Collection[str] = (), wait: bool = True
    ) -> AsyncIterator[SnapshotRef]:
        """A scratch set with a state of an edit set in it. The engine reads nothing in it that is switched off there.

        Args:
            added: token ids of one fact more, `SCRATCH_EDIT`.
            without: ids of edits that the new one takes the place of.
            wait: for room that other copies have; False for whoever has one.

        Raises:
            InvalidValue: the state is too large. PoolFull: there is no room beside what is admitted.
            CompressionFailed: the model cannot take the new edit.
        """
        keys, num_tokens = await self._store.edits_at(snapshot.edit_set, snapshot.version)
        if len(keys) > MAX_COPIED:
            raise InvalidValue(
                f"the state has {len(keys)} edits; one of at most {MAX_COPIED} can be tried out", param="edit_set"
            )
        keys = [key for key in keys if key[0] not in without]
        async with self._room.lend(ProjectUse(len(keys) + bool(added), num_tokens + len(added)), wait=wait):
            name = label_key(snapshot.edit_set, f"?{secrets.token_hex(8)}")  # no label has such a name
            try:
                yield await self._fill(SnapshotRef.empty(name), snapshot, keys, added)
            finally:
                await self._engine.drop(name)

    @asynccontextmanager
    async def state(self, snapshot: SnapshotRef) -> AsyncIterator[SnapshotRef]:
        """A state that can be asked: the engine's own where it has it, else a copy."""
        if not snapshot.num_edits:
            yield snapshot
        elif (found := self._engine.current(snapshot.edit_set)) is not None and found.id == snapshot.id:
            with self._engine.hold(found):
                yield found
        else:
            async with self.copied(snapshot) as copy:
                yield copy

    async def _fill(
        self, state: SnapshotRef, source: SnapshotRef, keys: Sequence[EditKey], added: Sequence[int]
    ) -> SnapshotRef:
        for start in range(0, len(keys), EDITS_PER_COMMIT):
            part = keys[start : start + EDITS_PER_COMMIT]
            blobs, ages, until = await self._store.gists_of(source, part)
            state = await self._commit(state, part, SnapshotDelta(None, state, blobs, (), ages, until))
        if added:
            captured = await self._capture(added, "fact")
            assert captured.blob is not None
            state = await self._commit(state, [captured.edit], SnapshotDelta(None, state, (captured.blob,)))
        return state

    async def _capture(self, token_ids: Sequence[int], kind: EditKind) -> Captured:
        (captured,) = await self._engine.capture([CaptureJob(SCRATCH_EDIT, 1, tuple(token_ids), kind=kind)])
        if captured.blob is None:
            raise CompressionFailed(f"the edit could not be compressed: {captured.error}", param="text")
        return captured

    async def _commit(self, state: SnapshotRef, keys: Sequence[EditKey], delta: SnapshotDelta[bytes]) -> SnapshotRef:
        after = state.advance(keys, ())
        await self._engine.commit(replace(delta, base=state.id if state.num_edits else None, snapshot=after))
        return after

    async def _one(
        self, client: httpx.AsyncClient, question: str, snapshot: SnapshotRef, max_tokens: int, salt: str, force: bool
    ) -> StateAnswer:
        from incomes_plugin.vllm.pin import EditScope, use_scope

        trace = f"trace_{secrets.token_hex(12)}" if snapshot.num_edits else None
        body = {"model": self._model, "messages": [{"role": "user", "content": question}], "temperature": 0}
        with use_scope(EditScope(snapshot.edit_set, snapshot, trace, force=force)):
            answer = await client.post(CHAT, json={**body, "max_tokens": max_tokens, "cache_salt": salt})
        said = answer.json()
        if answer.status_code != 200:
            reason = said.get("error", {}).get("message", answer.text)
            kind = InvalidValue if answer.status_code < 500 else NotReady
            raise kind(f"the engine refuses the question: {reason}", param="questions")
        return StateAnswer(said["choices"][0]["message"]["content"] or "", await self._applied(trace))

    async def _applied(self, trace: str | None) -> tuple[tuple[str, float], ...]:
        if trace is None:
            return ()
        try:
            found = await self._engine.attribution(trace)
        except SelectionFailed:  # nothing was picked
            return ()
        return tuple((edit_id, weight) for edit_id, _, weight in found.applied)


def _check_on(off: str | None) -> None:
    if off is not None:
        whose = "this server" if off == "server" else "this edit set"
        raise EditsDisabled(f"all edits of {whose} are switched off; switch them on to try any", param="edit_set")
