"""Every write of the store as a frozen value: built by the client, carried by Ray, applied by `EditStore.commit`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields

from incomes_server.auth.principal import SERVER, Principal, Scope
from incomes_server.auth.quotas import Limits
from incomes_server.edits.batch import FilePart, ImportedLine, LineError
from incomes_server.edits.evaluation import EvalSuite
from incomes_server.edits.model import NewEdit, OnConflict
from incomes_server.edits.questions import Asked
from incomes_server.edits.verbatim import VerbatimOutcome

from incomes_plugin.gist.edit import Captured, CaptureJob, EditKey
from incomes_plugin.pool.snapshot import SnapshotRef


@dataclass(frozen=True)
class Requested:
    """A write that a caller may send twice. The second time, the same request id gives the same objects back and
    changes nothing.

    `if_match` of a command: versions at which it may happen, see `check_version`; None = at any.
    """

    project: str
    request_id: str

    def body_hash(self) -> str:
        """Hash of all but the request id: the same id with another body is a mistake of the caller. A field that is no
        part of a comparison (`compare=False`) was made for this call, not sent."""
        sent = [f.name for f in fields(self) if f.compare and f.name != "request_id"]
        body = [type(self).__name__] + [repr(getattr(self, name)) for name in sent]
        return hashlib.sha256("\0".join(body).encode()).hexdigest()


@dataclass(frozen=True)
class CreateEditSet(Requested):
    """Make a named edit set. Result: EditSet."""

    name: str
    two_person: bool = False
    on_conflict: OnConflict = OnConflict.FLAG


@dataclass(frozen=True)
class EnsureEditSet:
    """Make a named edit set unless it is there. Result: EditSet."""

    project: str
    name: str


@dataclass(frozen=True)
class DeleteEditSet(Requested):
    """Retire every edit of a set without labels, then hide it. Result: EditSet at its last version."""

    edit_set: str
    if_match: tuple[int, ...] | None = None


@dataclass(frozen=True)
class AddEdits(Requested):
    """Add pending edits. Result: list[Edit]."""

    edit_set: str
    edits: tuple[NewEdit, ...]


@dataclass(frozen=True)
class ReplaceEdit(Requested):
    """Give an edit new content as its next version. Result: Edit, pending."""

    edit_id: str
    edit: NewEdit
    if_match: tuple[int, ...] | None = None


@dataclass(frozen=True)
class RetireEdit(Requested):
    """Take an edit out of service for good. Result: Edit."""

    edit_id: str
    if_match: tuple[int, ...] | None = None


@dataclass(frozen=True)
class RestoreEdit(Requested):
    """Bring a retired edit back as its next version. Result: Edit, pending.

    Attributes:
        version: its newest, whose content comes back.
        token_ids: of its text, as the present model's tokenizer cuts it.
    """

    edit_id: str
    version: int = field(compare=False)
    token_ids: tuple[int, ...] = field(compare=False)
    if_match: tuple[int, ...] | None = None


@dataclass(frozen=True)
class SwitchEdit(Requested):
    """Switch an edit on or off. Result: Edit."""

    edit_id: str
    on: bool
    if_match: tuple[int, ...] | None = None


@dataclass(frozen=True)
class SwitchEditSet(Requested):
    """Switch an edit set on or off. Result: EditSet."""

    edit_set: str
    on: bool


@dataclass(frozen=True)
class SwitchServer:
    """Switch all edits of the server on or off; `project` is the one of the operator who asks. Result: the versions of
    the edit sets to wait for."""

    project: str
    on: bool


@dataclass(frozen=True)
class ApproveEdit(Requested):
    """Let the newest version of an edit of a two-person set in; the sender is another than its writer. Result: Edit."""

    edit_id: str
    if_match: tuple[int, ...] | None = None


SwitchCommand = SwitchEdit | SwitchEditSet | ApproveEdit


@dataclass(frozen=True)
class EraseEdit(Requested):
    """Take an edit out of service and its content out of the database. Result: Edit, without content."""

    edit_id: str
    if_match: tuple[int, ...] | None = None


@dataclass(frozen=True)
class EraseAgain:
    """Erase what was erased before a backup came back. Result: how many of these edits had content."""

    edits: tuple[str, ...]


@dataclass(frozen=True)
class MoveLabel(Requested):
    """Point a label, made if needed, at what `to` refers to (`labels.refer`). Result: Label. Where it points there
    already, nothing changes."""

    edit_set: str
    name: str
    to: str
    if_match: tuple[int, ...] | None = None


@dataclass(frozen=True)
class DeleteLabel(Requested):
    """Delete a label. Result: Label as it was, with the number of the move that deletes it."""

    edit_set: str
    name: str
    if_match: tuple[int, ...] | None = None


@dataclass(frozen=True)
class CreateProject(Requested):
    """Make a project; `project` is the one of the operator who asks. Result: StoredProject."""

    name: str


@dataclass(frozen=True)
class CreateApiKey(Requested):
    """Make a key for the project. Result: StoredKey; its id is another than `key_id` when the request came before."""

    name: str
    scopes: tuple[Scope, ...]
    key_id: str = field(compare=False)
    digest: str = field(compare=False, repr=False)


@dataclass(frozen=True)
class RotateApiKey(Requested):
    """Make a key with the scopes of an old one, which works for `grace_s` more. Result: StoredKey, the new one."""

    old_id: str
    grace_s: int
    key_id: str = field(compare=False)
    digest: str = field(compare=False, repr=False)


@dataclass(frozen=True)
class RevokeApiKey(Requested):
    """End a key at once. Result: StoredKey."""

    key_id: str


@dataclass(frozen=True)
class SetLimits(Requested):
    """Replace the limits that are set for the project. Result: Limits."""

    limits: Limits


@dataclass(frozen=True)
class RotateDataKey(Requested):
    """Give the project a new data key. Result: DataKeyState."""


@dataclass(frozen=True)
class EraseDataKeys(Requested):
    """Delete the project's edit sets and destroy its data keys. Result: DataKeyState."""


DataKeyCommand = RotateDataKey | EraseDataKeys


@dataclass(frozen=True)
class SetEvalSuite(Requested):
    """Replace what an edit set is asked before its labels move. Result: EvalSuite."""

    suite: EvalSuite


@dataclass(frozen=True)
class RecordEvalRun(Requested):
    """Keep what a state of an edit set answered. Result: EvalRun."""

    snapshot: SnapshotRef
    asked: tuple[Asked, ...]


TenancyCommand = CreateProject | CreateApiKey | RotateApiKey | RevokeApiKey | SetLimits


@dataclass(frozen=True)
class Compact:
    """Forget some of the states of an edit set before `up_to` that no label needs. Result: whether there is more."""

    edit_set: str
    up_to: int


@dataclass(frozen=True)
class FreeGists:
    """Drop gists of versions that are over, where no state that is remembered has them. Result: None."""

    edits: tuple[EditKey, ...]


@dataclass(frozen=True)
class ForgetMoves:
    """Forget moves that labels left behind before a time, in unix seconds. Result: None."""

    before: int


@dataclass(frozen=True)
class ForgetRequests:
    """Forget up to `limit` request ids that nobody will send again. Result: whether there may be more."""

    limit: int


@dataclass(frozen=True)
class RecordOutcomes:
    """Store what the compressor made. Result: list[Uncompared], the versions that are to be compared with others first.
    Outcomes for versions that wait no longer are ignored."""

    outcomes: tuple[Captured, ...]


@dataclass(frozen=True)
class ApplyDue:
    """Let in what is in force from now on, retire what has expired. Result: None. Sent by the store's own clock."""


@dataclass(frozen=True)
class MarkCompressing:
    """Note that a worker has begun. Result: None. Only pending versions change."""

    edits: tuple[EditKey, ...]


@dataclass(frozen=True)
class RequeueStale:
    """Set every gist that another model made back to pending, out of the snapshots. Result: how many."""

    fingerprint: str


@dataclass(frozen=True)
class Reseal:
    """Bring up to `limit` rows of each kind under their project's newest data key. Result: Resealed.

    Attributes:
        damaged: rows that are known not to open: table, place, number.
    """

    limit: int
    damaged: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True)
class NoteRecall(Requested):
    """Leave it in the audit log that the text of a verbatim edit was said, and from what. Result: Edit."""

    edit_id: str
    version: int
    source: str = field(compare=False)


@dataclass(frozen=True)
class LeaseVerbatims:
    """Go on with verbatim edits, and take up to `limit` more. Result: VerbatimLease.

    Attributes:
        held: what the worker has; what it had before and does not name is free again.
        lease_s: so long they are its own without another call.
        origin: what it makes vectors with, as JSON: what fails here has another chance with another one.
    """

    worker: str
    held: tuple[EditKey, ...]
    limit: int
    lease_s: int
    origin: str


@dataclass(frozen=True)
class RecordVerbatims:
    """Keep what a worker made of verbatim edits that are still its own. Result: how many were."""

    worker: str
    outcomes: tuple[VerbatimOutcome, ...]


@dataclass(frozen=True)
class RefuseVerbatim:
    """The vectors of a verbatim edit did not say its text: they are made again. Result: None."""

    edit: EditKey
    reason: str


@dataclass(frozen=True)
class RequeueVerbatims:
    """Vectors that were not made with this model, tokenizer and template are stale. Result: how many edits."""

    origin: str


@dataclass(frozen=True)
class Retokenize:
    """Set the token ids of edit versions that wait: another model may spell them otherwise. Result: None."""

    jobs: tuple[CaptureJob, ...]


@dataclass(frozen=True)
class AddFileParts:
    """Keep parts of a file that is still arriving, under the key of its owner, a project. Result: None."""

    owner: str
    file_id: str
    parts: tuple[FilePart, ...]


@dataclass(frozen=True)
class DropFileParts:
    """Forget what is there of a file that did not arrive as a whole. Result: None. A file that did stays."""

    file_id: str


@dataclass(frozen=True)
class KeepFile(Requested):
    """The file has arrived. Result: StoredFile. A request that comes again arrives under another id: its content says
    whether it is the same."""

    filename: str
    purpose: str
    num_bytes: int
    num_parts: int
    sha256: str
    limit_bytes: int = field(compare=False)
    file_id: str = field(compare=False)


@dataclass(frozen=True)
class DeleteFile(Requested):
    """Delete a file and what is in it. Result: its id."""

    file_id: str


@dataclass(frozen=True)
class CreateBatch(Requested):
    """Import a file. Result: Batch."""

    input_file: str
    edit_set: str
    dry_run: bool
    metadata: dict[str, str]
    on_conflict: OnConflict | None = None


@dataclass(frozen=True)
class CancelBatch(Requested):
    """Read no more lines of an import. Result: Batch."""

    batch_id: str


@dataclass(frozen=True)
class ImportLines:
    """Add the edits of the part at `position` and move on. Result: Batch as it is then."""

    project: str
    batch_id: str
    position: int
    lines: tuple[ImportedLine, ...]


@dataclass(frozen=True)
class SettleLines:
    """The lines behind `settled`, up to `upto`, wait for nothing any more; those in `failed` have no gist. Result:
    Batch."""

    batch_id: str
    settled: int
    upto: int
    failed: tuple[tuple[int, LineError], ...]


@dataclass(frozen=True)
class FinishBatch:
    """End an import whose lines are all settled. Result: Batch."""

    batch_id: str
    output_bytes: int
    error_bytes: int


Command = (
    CreateEditSet
    | EnsureEditSet
    | DeleteEditSet
    | AddEdits
    | ReplaceEdit
    | RetireEdit
    | RestoreEdit
    | SwitchCommand
    | SwitchServer
    | EraseEdit
    | EraseAgain
    | MoveLabel
    | DeleteLabel
    | SetEvalSuite
    | RecordEvalRun
    | Compact
    | FreeGists
    | ForgetMoves
    | ForgetRequests
    | TenancyCommand
    | DataKeyCommand
    | Reseal
    | RecordOutcomes
    | ApplyDue
    | MarkCompressing
    | RequeueStale
    | NoteRecall
    | LeaseVerbatims
    | RecordVerbatims
    | RefuseVerbatim
    | RequeueVerbatims
    | Retokenize
    | AddFileParts
    | DropFileParts
    | KeepFile
    | DeleteFile
    | CreateBatch
    | CancelBatch
    | ImportLines
    | SettleLines
    | FinishBatch
)


@dataclass(frozen=True)
class Origin:
    """Where a command comes from, for the audit log: who sent it, in which HTTP request."""

    principal: Principal = SERVER
    request_id: str | None = None


@dataclass(frozen=True)
class Sent:
    """A command in its envelope."""

    command: Command
    origin: Origin = Origin()
