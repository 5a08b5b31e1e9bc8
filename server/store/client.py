"""`StoreClient`: async face of the store actor. The API, the scheduler and the replicas reach the store only by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from incomes_server.edits.label import Label, Sealed, SnapshotDiff
from incomes_server.edits.model import Edit, EditSet, NewEdit, OnConflict, WaitingText
from incomes_server.store import commands, compared, counts, edit_sets, edits, labels, outcomes, snapshots, switches
from incomes_server.store.compared import Uncompared
from incomes_server.store.counts import LabelUse, ProjectUse, StoreCounts
from incomes_server.store.evaluation_calls import EvaluationCalls
from incomes_server.store.ray_call import call
from incomes_server.store.replica_table import ReplicaLag, ReplicaProgress, ReplicaState
from incomes_server.store.tenancy_calls import TenancyCalls
from incomes_server.store.verbatim_calls import VerbatimCalls

from incomes_plugin.gist.edit import Captured, CaptureJob, EditKey
from incomes_plugin.pool.snapshot import SnapshotDelta


class StoreClient(TenancyCalls, EvaluationCalls, VerbatimCalls):
    """Typed calls to the store actor; errors arrive as the `IncomesError` that was raised there.

    `edit_set` is a name or an id everywhere. Writes with a `request_id` may be sent again: the answer is the same
    objects, and nothing is written twice. Ids of other projects are as unknown as ids that never existed.
    """

    async def create_edit_set(
        self,
        project: str,
        name: str,
        *,
        request_id: str,
        two_person: bool = False,
        on_conflict: OnConflict = OnConflict.FLAG,
    ) -> EditSet:
        """Raises EditSetExists."""
        return await self._write(commands.CreateEditSet(project, request_id, name, two_person, on_conflict))

    async def switch(self, command: commands.SwitchCommand | commands.SwitchServer) -> Any:
        """Kill switches and approvals; see the command."""
        return await self._write(command)

    async def is_server_on(self) -> bool:
        """Whether the server's edits are switched on."""
        return await self._read(switches.is_server_on)

    async def ensure_edit_set(self, project: str, name: str) -> EditSet:
        """Get the set, made if needed."""
        return await self._write(commands.EnsureEditSet(project, name))

    async def get_edit_set(self, project: str, edit_set: str) -> EditSet:
        """Raises EditSetNotFound."""
        return await self._read(edit_sets.get_edit_set, project, edit_set)

    async def list_edit_sets(
        self, project: str, *, limit: int, after: str | None, order: str
    ) -> tuple[list[EditSet], bool]:
        """A page in order of creation (`asc` or `desc`), and whether more follow."""
        return await self._read(edit_sets.list_edit_sets, project, limit=limit, after=after, order=order)

    async def versions_of(self, project: str) -> dict[str, int]:
        """Version of every edit set of the project."""
        versions: dict[str, int] = {}
        has_more, after = True, None
        while has_more:
            page, has_more = await self.list_edit_sets(project, limit=100, after=after, order="asc")
            versions |= {item.id: item.snapshot.version for item in page}
            after = page[-1].id if page else None
        return versions

    async def delete_edit_set(
        self, project: str, edit_set: str, *, request_id: str, if_match: tuple[int, ...] | None = None
    ) -> EditSet:
        """Retire every edit in it, then hide it; the answer has the version to wait for. Raises EtagMismatch,
        EditSetLabelled."""
        return await self._write(commands.DeleteEditSet(project, request_id, edit_set, if_match))

    async def add_edits(self, project: str, edit_set: str, edits: Sequence[NewEdit], *, request_id: str) -> list[Edit]:
        """Add all edits as pending, or none. Raises EditConflict when an `external_id` is taken."""
        return await self._write(commands.AddEdits(project, request_id, edit_set, tuple(edits)))

    async def replace_edit(
        self, project: str, edit_id: str, edit: NewEdit, *, request_id: str, if_match: tuple[int, ...] | None = None
    ) -> Edit:
        """A new pending version; the old one serves until the new one is ready.

        Raises:
            EditConflict: it is retired.
            EtagMismatch: its version is not one of `if_match`.
        """
        return await self._write(commands.ReplaceEdit(project, request_id, edit_id, edit, if_match))

    async def retire_edit(
        self, project: str, edit_id: str, *, request_id: str, if_match: tuple[int, ...] | None = None
    ) -> Edit:
        """Out of the snapshot in the same transaction; wait for its `set_version` (None: it never joined). Raises
        EtagMismatch."""
        return await self._write(commands.RetireEdit(project, request_id, edit_id, if_match))

    async def move_label(
        self,
        project: str,
        edit_set: str,
        name: str,
        to: str,
        *,
        request_id: str,
        if_match: tuple[int, ...] | None = None,
    ) -> Label:
        """Point a label at `head`, a version, a snapshot or another label's state; made if needed.

        Raises SnapshotNotFound, LabelNotFound, EtagMismatch.
        """
        return await self._write(commands.MoveLabel(project, request_id, edit_set, name, to, if_match))

    async def delete_label(
        self, project: str, edit_set: str, name: str, *, request_id: str, if_match: tuple[int, ...] | None = None
    ) -> Label:
        """Raises LabelNotFound, EtagMismatch."""
        return await self._write(commands.DeleteLabel(project, request_id, edit_set, name, if_match))

    async def label_moves_of(self, project: str) -> dict[str, int]:
        """Newest move of every label of the project, by its key."""
        return await self._read(labels.moves_of, project)

    async def use_of_move(self, project: str, edit_set: str, name: str, to: str) -> tuple[LabelUse, LabelUse]:
        """What a label would take after a move, and what it takes now. Raises as `move_label` does."""
        return await self._read(labels.use_of_move, project, edit_set, name, to)

    async def use_of_labels(self) -> dict[str, LabelUse]:
        """What labels take beside the newest states, by project."""
        return await self._read(counts.use_of_labels)

    async def get_label(self, project: str, edit_set: str, name: str) -> Label:
        """Raises LabelNotFound."""
        return await self._read(labels.get_label, project, edit_set, name)

    async def list_labels(self, project: str, edit_set: str) -> list[Label]:
        """By name."""
        return await self._read(labels.list_labels, project, edit_set)

    async def get_snapshot(self, project: str, snapshot: str) -> Sealed:
        """Raises SnapshotNotFound."""
        return await self._read(snapshots.get_snapshot, project, snapshot)

    async def list_snapshots(
        self, project: str, edit_set: str, *, limit: int, after: str | None, order: str
    ) -> tuple[list[Sealed], bool]:
        """A page of the states that an edit set has had, and whether more follow."""
        return await self._read(snapshots.list_snapshots, project, edit_set, limit=limit, after=after, order=order)

    async def diff(self, project: str, edit_set: str, base: str, target: str) -> SnapshotDiff:
        """What lies between two states, each named as in `move_label`. Raises SnapshotNotFound, LabelNotFound."""
        return await self._read(snapshots.diff, project, edit_set, base, target)

    async def restore_edit(
        self,
        project: str,
        edit: Edit,
        token_ids: Sequence[int],
        *,
        request_id: str,
        if_match: tuple[int, ...] | None = None,
    ) -> Edit:
        """A retired edit as it was read, as its next version, pending. Raises EditConflict, EtagMismatch."""
        command = commands.RestoreEdit(project, request_id, edit.id, edit.version, tuple(token_ids), if_match)
        return await self._write(command)

    async def erase_edit(
        self, project: str, edit_id: str, *, request_id: str, if_match: tuple[int, ...] | None = None
    ) -> Edit:
        """Out of the snapshot as `retire_edit`, and out of the database for good. Raises EtagMismatch."""
        return await self._write(commands.EraseEdit(project, request_id, edit_id, if_match))

    async def get_edit(self, project: str, edit_id: str, version: int | None = None) -> Edit:
        """The newest version, or the given one. Raises EditNotFound."""
        return await self._read(edits.get_edit, project, edit_id, version)

    async def list_edits(self, project: str, **page: Any) -> tuple[list[Edit], bool]:
        """A page of edits at their newest version, and whether more follow; see `edits.list_edits`."""
        return await self._read(edits.list_edits, project, **page)

    async def wait_status(self, project: str, edit_ids: Sequence[str], *, timeout_s: float) -> list[Edit]:
        """Return when none waits for compression any more, or as they are at the timeout."""
        return await call(self._actor.wait_status.remote(project, tuple(edit_ids), timeout_s))

    async def wait_edits(
        self, project: str, edit_ids: Sequence[str], *, timeout_s: float
    ) -> tuple[list[Edit], dict[str, ReplicaProgress]]:
        """Return when none waits for compression and every live replica has all of them, or as it is at the timeout.

        Returns:
            the edits, and the replicas' progress by edit set; none while an edit waits for compression.
        """
        return await call(self._actor.wait_edits.remote(project, tuple(edit_ids), timeout_s))

    async def wait_active(self, edit_set_id: str, version: int, *, timeout_s: float) -> ReplicaProgress:
        """Return when every live replica applies `version` or a later one, or the progress at the timeout."""
        return await call(self._actor.wait_active.remote(edit_set_id, version, timeout_s))

    async def record_outcomes(self, outcomes: Sequence[Captured]) -> list[Uncompared]:
        """Ready edits join the snapshot with one version bump per edit set (more only above 8 MiB of gists). Those in
        the answer wait on, to be compared with further edits first."""
        return await self._write(commands.RecordOutcomes(tuple(outcomes)))

    async def ready_gists(self, edit_set: str, keys: Sequence[EditKey]) -> dict[EditKey, bytes]:
        """Gists of those edit versions of a set that are ready."""
        return await self._read(compared.ready_gists, edit_set, list(keys))

    async def mark_compressing(self, jobs: Sequence[CaptureJob]) -> None:
        """Show that a worker has these edits."""
        await self._write(commands.MarkCompressing(tuple(job.edit for job in jobs)))

    async def pending_jobs(self, limit: int) -> list[CaptureJob]:
        """The oldest versions that wait for compression."""
        return await self._read(outcomes.pending_jobs, limit)

    async def use_of_projects(self) -> dict[str, ProjectUse]:
        """What each project's edits take, or will take when they are compressed."""
        return await self._read(counts.use_of_projects)

    async def waiting_texts(self, after: int, limit: int) -> list[WaitingText]:
        """A page of the texts that wait for compression; `after` is the `seq` of the last one seen."""
        return await self._read(outcomes.waiting_texts, after, limit)

    async def retokenize(self, jobs: Sequence[CaptureJob]) -> None:
        """Set the token ids of edit versions that wait."""
        await self._write(commands.Retokenize(tuple(jobs)))

    async def requeue_stale(self, fingerprint: str) -> int:
        """Call at boot with the engine's model fingerprint, before replicas start; gists of other models are made anew.

        From then on the store refuses gists of any other model. Let the scheduler replay afterwards.
        """
        return await self._write(commands.RequeueStale(fingerprint))

    async def poll(
        self,
        replica: str,
        positions: dict[str, int],
        *,
        timeout_s: float,
        serving: bool = True,
        instance: str | None = None,
    ) -> list[SnapshotDelta[bytes]]:
        """Heartbeat, acknowledge `positions` (edit set id -> version applied), wait for news, get the next deltas.

        Sets that `positions` lacks start from 0. In a delta, removals come before additions.

        Args:
            serving: False while a new replica catches up and takes no requests: nobody waits for it.
            instance: tells two processes apart that go by the same name. The second is refused: ReplicaNameTaken.
        """
        return await call(self._actor.poll.remote(replica, positions, timeout_s, serving, instance))

    async def heartbeat(self, replica: str, instance: str | None = None) -> bool:
        """Keep the lease alive while a large delta is applied. False: it was over, nobody waits for the replica."""
        return await call(self._actor.heartbeat.remote(replica, instance))

    async def nack(self, replica: str, edit_set: str, version: int, reason: str) -> None:
        """Report that a delta could not be applied."""
        await call(self._actor.nack.remote(replica, edit_set, version, reason))

    async def leave(self, replica: str, instance: str | None = None) -> None:
        """A replica stops serving; nobody waits for it any more."""
        await call(self._actor.leave.remote(replica, instance))

    async def replicas(self) -> list[ReplicaState]:
        """Every replica with a valid lease."""
        return await call(self._actor.replicas.remote())

    async def lag(self) -> list[ReplicaLag]:
        """How far each replica is behind the newest version of every edit set."""
        return await call(self._actor.lag.remote())

    async def health(self) -> str | None:
        """None, or why nothing can be written now."""
        return await call(self._actor.health.remote())

    async def tidy(self, keep_history_s: float, *, limit_s: float = 10.0) -> bool:
        """Forget older states that nothing needs; whether some are left after `limit_s` seconds."""
        return await call(self._actor.tidy.remote(keep_history_s, limit_s))

    async def counts(self) -> StoreCounts:
        """Totals for metrics."""
        return await self._read(counts.count)
