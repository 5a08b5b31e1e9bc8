"""Edit and edit set: the nouns of the store and the API, frozen. No SQL, no Ray, no HTTP in here."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from incomes_server.edits.verbatim import RecallKeys, VerbatimStatus

from incomes_plugin.gist.edit import CaptureJob, ConflictKind, EditKind
from incomes_plugin.pool.snapshot import SnapshotRef


class EditStatus(StrEnum):
    """State of an edit version's content. Activation is not a state: it is membership of the replicas' snapshot."""

    PENDING = "pending"
    COMPRESSING = "compressing"
    READY = "ready"
    RETIRED = "retired"
    FAILED = "failed"
    CONFLICTED = "conflicted"
    SUPERSEDED = "superseded"
    ERASED = "erased"


class OnConflict(StrEnum):
    """What becomes of an edit that contradicts another one of its set, or says the same: it ends, the other one leaves,
    both stay and nobody looks, both stay and say so."""

    REJECT = "reject"
    SUPERSEDE = "supersede"
    KEEP_BOTH = "keep_both"
    FLAG = "flag"


@dataclass(frozen=True)
class EditSet:
    """A named collection of edits: unit of tenancy, quota and rollout.

    Attributes:
        id: `eset_…`.
        project: tenant it belongs to.
        name: unique within the project, e.g. `default`.
        snapshot: head of its log; its version grows by one with every committed batch of adds or removals.
        disabled: switched off: its requests are answered without edits.
        two_person: what one key writes joins when another key has approved it.
        on_conflict: of edits that do not say it themselves.
    """

    id: str
    project: str
    name: str
    created_at: int
    snapshot: SnapshotRef
    disabled: bool = False
    two_person: bool = False
    on_conflict: OnConflict = OnConflict.FLAG


@dataclass(frozen=True)
class EditProvenance:
    """Where an edit version comes from, as its writer says; what the server itself knows of the writer is in the audit.

    Attributes:
        source_url, document_id: the document that says so.
        author: who answers for it.
        justification: why it was written.
    """

    source_url: str | None = None
    document_id: str | None = None
    author: str | None = None
    justification: str | None = None


@dataclass(frozen=True)
class NewEdit:
    """What a caller gives to create or replace an edit.

    Attributes:
        supersedes: ids of edits that leave in the step in which this one joins.
        effective_from, expires_at: unix seconds; it is in the snapshot from the first on and until the second.
        on_conflict: None = as its edit set has it.
        found_by: of a verbatim edit, whose `token_ids` are those of the words that it is found by; None = a fact.
    """

    text: str
    token_ids: tuple[int, ...]
    external_id: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    provenance: EditProvenance = EditProvenance()
    supersedes: tuple[str, ...] = ()
    effective_from: int | None = None
    expires_at: int | None = None
    on_conflict: OnConflict | None = None
    found_by: RecallKeys | None = None

    @property
    def kind(self) -> EditKind:
        """Of the edit version."""
        return "fact" if self.found_by is None else "verbatim"


@dataclass(frozen=True)
class ConflictWith:
    """Another edit of the set that gives another answer to the same question, or the same one; `score`: how sure the
    judge is, 0.5 to 1."""

    edit_id: str
    kind: ConflictKind
    score: float


@dataclass(frozen=True)
class Edit:
    """An edit at one version.

    Attributes:
        id: `edit_…`.
        edit_set: id of its edit set.
        version: 1 for the first content; a replacement adds one.
        status, status_reason: see `EditStatus`; the reason is set when failed, and when another edit superseded it.
        set_version: version of the edit set at which this edit version joined (or, retired, left) the snapshot.
        num_tokens: of the text, as the model's tokenizer cuts it; of a verbatim edit, those of its gist.
        gist_bytes: size of the gist; 0 until ready.
        provenance, supersedes, effective_from, expires_at: as it was written.
        held: why a version that is ready is not in the snapshot: `disabled`, `approval`, `scheduled`; None for all
            others.
        written_by, approved_by: ids of the keys that did.
        on_conflict: what happens where it conflicts with others.
        conflict_check: whether it was compared with the other edits: `done`, `partial` where more of them wait than are
            looked at, `unavailable` where the engine could not; None: it waits, or need not be compared.
        conflicts: with edits that are ready now.
        verbatim: of a verbatim edit, how it is said; None where it was erased.
    """

    id: str
    project: str
    edit_set: str
    version: int
    status: EditStatus
    status_reason: str | None
    text: str
    external_id: str | None
    metadata: dict[str, str]
    created_at: int
    updated_at: int
    set_version: int | None
    num_tokens: int
    gist_bytes: int
    provenance: EditProvenance = EditProvenance()
    supersedes: tuple[str, ...] = ()
    effective_from: int | None = None
    expires_at: int | None = None
    held: str | None = None
    written_by: str | None = None
    approved_by: str | None = None
    on_conflict: OnConflict = OnConflict.FLAG
    conflict_check: str | None = None
    conflicts: tuple[ConflictWith, ...] = ()
    kind: EditKind = "fact"
    verbatim: VerbatimStatus | None = None

    @property
    def compared_in(self) -> str | None:
        """Id of the set with whose edits it is compared; None = with none."""
        return None if self.on_conflict is OnConflict.KEEP_BOTH else self.edit_set


@dataclass(frozen=True)
class WaitingText:
    """The words of an edit version that waits for compression, and how they were tokenized; `seq` orders them."""

    seq: int
    job: CaptureJob
    text: str
