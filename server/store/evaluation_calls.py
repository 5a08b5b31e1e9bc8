"""Calls of the store for trying edits out and evaluating states of an edit set."""

from __future__ import annotations

from collections.abc import Sequence

from incomes_server.edits.evaluation import EvalRun, EvalSuite
from incomes_server.edits.model import Edit, NewEdit
from incomes_server.edits.questions import Asked
from incomes_server.store import commands, edits, evaluations, log
from incomes_server.store.calls import StoreCalls

from incomes_plugin.gist.edit import EditKey
from incomes_plugin.pool.snapshot import SnapshotRef


class EvaluationCalls(StoreCalls):
    """A part of `StoreClient`."""

    async def get_edits(self, project: str, edit_ids: Sequence[str]) -> list[Edit]:
        """The newest version of each. Raises EditNotFound."""
        return await self._read(edits.get_edits, project, list(edit_ids))

    async def check_edits(self, project: str, edit_set: str, new: Sequence[NewEdit]) -> None:
        """What `add_edits` would refuse, without writing. Raises EditSetNotFound, EditNotFound, EditConflict."""
        await self._read(edits.check_edits, project, edit_set, list(new))

    async def edits_at(self, edit_set_id: str, version: int) -> tuple[list[EditKey], int]:
        """Edit versions of a state of an edit set, and their tokens together."""
        return await self._read(log.edits_at, edit_set_id, version)

    async def newest_at(self, snapshot: SnapshotRef, limit: int) -> list[Edit]:
        """The newest edits of a state, newest first, as they are in it."""
        return await self._read(evaluations.newest_at, snapshot, limit)

    async def gists_of(
        self, snapshot: SnapshotRef, keys: Sequence[EditKey]
    ) -> tuple[tuple[bytes, ...], tuple[int, ...], tuple[int | None, ...]]:
        """Gists of edit versions of a state, their ages, and when they expire. Raises NotReady: one was forgotten."""
        return await self._read(log.blobs_of, snapshot, list(keys))

    async def state_at(self, project: str, edit_set: str, to: str) -> SnapshotRef:
        """What `head`, a version, a snapshot's id or a label means. Raises EditSetNotFound and those of `refer`."""
        return await self._read(evaluations.state_at, project, edit_set, to)

    async def get_suite(self, project: str, edit_set: str) -> EvalSuite:
        """Raises EditSetNotFound."""
        return await self._read(evaluations.get_suite, project, edit_set)

    async def set_suite(self, project: str, suite: EvalSuite, *, request_id: str) -> EvalSuite:
        """Replace the suite of the edit set that it names. Raises EditSetNotFound."""
        return await self._write(commands.SetEvalSuite(project, request_id, suite))

    async def record_run(
        self, project: str, snapshot: SnapshotRef, asked: Sequence[Asked], *, request_id: str
    ) -> EvalRun:
        """Keep what a state answered. Raises EditSetNotFound."""
        return await self._write(commands.RecordEvalRun(project, request_id, snapshot, tuple(asked)))

    async def get_run(self, project: str, run_id: str) -> tuple[EvalRun, EvalRun | None]:
        """A run, and the one of its edit set before it. Raises EvalRunNotFound."""
        return await self._read(evaluations.get_run, project, run_id)

    async def list_runs(
        self, project: str, edit_set: str, *, limit: int, after: str | None, order: str
    ) -> tuple[list[EvalRun], bool]:
        """A page of an edit set's runs, and whether more follow. Raises EditSetNotFound."""
        return await self._read(evaluations.list_runs, project, edit_set, limit=limit, after=after, order=order)
