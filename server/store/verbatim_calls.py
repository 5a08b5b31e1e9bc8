"""Calls of the store for verbatim edits."""

from __future__ import annotations

from collections.abc import Sequence

from incomes_server.edits import Edit, VerbatimText
from incomes_server.edits.verbatim import VerbatimLease, VerbatimOutcome
from incomes_server.store import commands, verbatims
from incomes_server.store.calls import StoreCalls

from incomes_plugin.gist.edit import EditKey


class VerbatimCalls(StoreCalls):
    """A part of `StoreClient`."""

    async def get_verbatim(self, project: str, edit_id: str, version: int) -> VerbatimText:
        """What a recall needs of a verbatim edit version. Raises EditNotFound: the project has no such one."""
        return await self._read(verbatims.get_verbatim, project, edit_id, version)

    async def note_recall(self, project: str, edit_id: str, version: int, source: str, *, request_id: str) -> Edit:
        """Leave it in the audit log that the text was said. Raises EditNotFound."""
        return await self._write(commands.NoteRecall(project, request_id, edit_id, version, source))

    async def verbatims_wait(self, worker: str) -> bool:
        """Whether verbatim edits wait for vectors, and no other worker has them."""
        return await self._read(verbatims.verbatims_wait, worker)

    async def lease_verbatims(
        self, worker: str, held: Sequence[EditKey], limit: int, *, lease_s: int, origin: str
    ) -> VerbatimLease:
        """Go on with those that a worker has, and take up to `limit` more. Drop what is not in the answer."""
        return await self._write(commands.LeaseVerbatims(worker, tuple(held), limit, lease_s, origin))

    async def record_verbatims(self, worker: str, outcomes: Sequence[VerbatimOutcome]) -> int:
        """Keep what became of verbatim edits; how many of them the worker still had."""
        return await self._write(commands.RecordVerbatims(worker, tuple(outcomes)))

    async def refuse_verbatim(self, edit: EditKey, reason: str) -> None:
        """A recall from its vectors went wrong: they are made again."""
        await self._write(commands.RefuseVerbatim(edit, reason))

    async def verbatim_origins(self) -> list[str]:
        """With what vectors were made, or tried to be made."""
        return await self._read(verbatims.verbatim_origins)

    async def requeue_verbatims(self, origin: str) -> int:
        """Call at boot with what vectors are valid for here (JSON of a `VectorOrigin`); how many edits go back."""
        return await self._write(commands.RequeueVerbatims(origin))
