"""Edit, edit set, delta: the nouns of the store and the API, frozen. No SQL, no Ray, no HTTP in here."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class EditStatus(StrEnum):
    """State of an edit version's content. Activation is not a state: it is membership of the replicas' snapshot."""

    PENDING = "pending"
    COMPRESSING = "compressing"
    READY = "ready"
    RETIRED = "retired"
    FAILED = "failed"
    SUPERSEDED = "superseded"


@dataclass(frozen=True)
class EditSet:
    """A named collection of edits: unit of tenancy, quota and rollout.

    Attributes:
        id: `eset_…`.
        project: tenant it belongs to.
        name: unique within the project, e.g. `default`.
        version: head of its log; grows by one with every committed batch of adds or removals.
        digest: additive multiset hash of the active (edit id, version) pairs; equal content, equal digest.
        num_edits: edits in the head snapshot.
    """

    id: str
    project: str
    name: str
    created_at: int
    version: int
    digest: str
    num_edits: int


@dataclass(frozen=True)
class NewEdit:
    """What a caller gives to create or replace an edit."""

    text: str
    token_ids: tuple[int, ...]
    external_id: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Edit:
    """An edit at one version.

    Attributes:
        id: `edit_…`.
        edit_set: id of its edit set.
        version: 1 for the first content; a replacement adds one.
        status, status_reason: see `EditStatus`; the reason is set when failed.
        set_version: version of the edit set at which this edit version joined (or, retired, left) the snapshot.
        num_tokens: of the text, as the model's tokenizer cuts it.
        gist_bytes: size of the gist; 0 until ready.
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


@dataclass(frozen=True)
class CompressionJob:
    """One edit version to compress."""

    edit_id: str
    version: int
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class WaitingText:
    """The text of an edit version that waits for compression, and how it was tokenized; `seq` orders them."""

    seq: int
    edit_id: str
    version: int
    text: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class CompressionOutcome:
    """Result of one job: a one-gist blob (`incomes_plugin.gist.dump_gists`), or the reason it failed."""

    edit_id: str
    version: int
    blob: bytes | None
    error: str | None = None


@dataclass(frozen=True)
class Delta:
    """What takes a replica from one version of an edit set to a later one.

    Attributes:
        edit_set: id of the edit set; `project` its tenant.
        base: version the replica has (0 = nothing).
        version, digest, num_edits: the state after the delta.
        head: newest version in the store; `version < head` means another page follows at once.
        added: (edit id, version, gist blob) of every edit version to add.
        removed: (edit id, version) of every edit version to remove.
        ages: of each of `added`, in order: where it stands in the order of creation, whenever it was compressed.
        deleted: the set is gone, and nothing else is told of it.
    """

    edit_set: str
    project: str
    base: int
    version: int
    digest: str
    num_edits: int
    head: int
    added: tuple[tuple[str, int, bytes], ...]
    removed: tuple[tuple[str, int], ...]
    ages: tuple[int, ...]
    deleted: bool = False
