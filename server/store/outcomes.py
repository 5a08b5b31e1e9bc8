"""What compression changes: pending -> compressing -> ready (joins the snapshot) or failed; stale gists go back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from incomes_server.edits import WAITING, EditStatus, OnConflict, WaitingText, found_by, sources_of
from incomes_server.store.compared import Arrival, Uncompared
from incomes_server.store.conflicts import judge
from incomes_server.store.log import MODEL, append
from incomes_server.store.membership import MadeGist, mark, settle
from incomes_server.store.objects import let_go
from incomes_server.store.rows import (
    OF_VERSION,
    AnyRow,
    Transaction,
    chunks,
    encode_tokens,
    in_pairs,
    job_from,
    keys_from,
    text_from,
)
from incomes_server.store.schema import edit_sets, edit_versions, edits, meta, verbatims
from incomes_server.store.sealing import boxes_of
from sqlalchemy import Connection, bindparam, delete, insert, or_, select, update

from incomes_plugin.errors import GistFormatError, Unavailable
from incomes_plugin.gist.edit import Captured, CaptureJob, EditKey
from incomes_plugin.gist.header import read_header

e, v = edits.c, edit_versions.c

_THIS_VERSION = (v.edit_id == bindparam("b_edit")) & (v.version == bindparam("b_version"))


def pending_jobs(conn: Connection, limit: int) -> list[CaptureJob]:
    """The oldest versions that wait."""
    columns = (v.edit_id, v.version, v.token_ids, v.data_key, v.on_conflict, v.kind, e.edit_set)
    query = select(*columns).join_from(edit_versions, edits, e.id == v.edit_id).where(v.status.in_(WAITING))
    query = query.order_by(v.seq).limit(limit)
    return [job_from(conn, row) for row in conn.execute(query)]


def model_of(conn: Connection) -> str | None:
    """Fingerprint of the only model whose gists are accepted; None before the first engine has come."""
    found: str | None = conn.scalar(select(meta.c.value).where(meta.c.key == MODEL))
    return found


def waiting_texts(conn: Connection, after: int, limit: int) -> list[WaitingText]:
    """The oldest texts behind `after` that wait, with their token ids; of verbatim edits what they are found by."""
    columns = (v.seq, v.edit_id, v.version, v.text, v.token_ids, v.data_key, v.on_conflict, v.kind, e.edit_set)
    query = (
        select(*columns, verbatims.c.said, verbatims.c.data_key.label("said_key"))
        .join_from(edit_versions, edits, e.id == v.edit_id)
        .outerjoin(verbatims, OF_VERSION)
        .where(v.status.in_(WAITING), v.seq > after)
        .order_by(v.seq)
        .limit(limit)
    )
    return [WaitingText(row.seq, job_from(conn, row), _words(conn, row)) for row in conn.execute(query)]


def _words(conn: Connection, row: AnyRow) -> str:
    text = text_from(conn, row)
    if row.said is None:
        return text
    return found_by(keys_from(conn, (row.edit_id, row.version), row.said, row.said_key))


def retokenize(tx: Transaction, jobs: Sequence[CaptureJob]) -> None:
    """New token ids for versions that wait; the others keep what their gist was made from."""
    waits = or_(*(v.status == status for status in WAITING))  # an IN does not go with several rows at once
    statement = update(edit_versions).where(_THIS_VERSION, waits)
    boxes = boxes_of(tx.conn, [job.edit for job in jobs])
    changes = [
        {"b_edit": job.edit_id, "b_version": job.version, "b_count": len(job.token_ids)}
        | {"b_ids": boxes[job.edit].seal("token_ids", job.edit, encode_tokens(job.token_ids))}
        for job in jobs
        if job.edit in boxes
    ]
    if changes:
        tx.conn.execute(statement.values(token_ids=bindparam("b_ids"), num_tokens=bindparam("b_count")), changes)
        tx.changed |= {job.edit_id for job in jobs}


def mark_compressing(tx: Transaction, refs: Sequence[EditKey]) -> None:
    """Only pending versions change."""
    for part in chunks(refs):
        tx.conn.execute(
            update(edit_versions)
            .where(in_pairs(v.edit_id, v.version, part), v.status.in_(sources_of(EditStatus.COMPRESSING)))
            .values(status=EditStatus.COMPRESSING, updated_at=tx.now)
        )


def record_outcomes(tx: Transaction, outcomes: Sequence[Captured]) -> list[Uncompared]:
    """Ready edits join the snapshot of their set; versions that wait no longer (retired, replaced, done) are left.

    Returns:
        those that were not compared with all others of their set: they wait on, to be compared with these too.

    Raises:
        Unavailable: another model than the one that is served made them. No edit fails for that: they wait on.
    """
    expected = model_of(tx.conn)
    made: dict[str, dict[EditKey, MadeGist]] = defaultdict(dict)
    arrivals: dict[str, list[Arrival]] = defaultdict(list)
    again: list[Uncompared] = []
    for outcome, row in _waiting(tx.conn, outcomes):
        tx.changed.add(outcome.edit_id)
        checked = _check(outcome, expected)
        if isinstance(checked, str):
            _fail(tx, outcome, checked)
        else:
            made[row.edit_set][outcome.edit] = checked
            policy = OnConflict(row.on_conflict or OnConflict.FLAG)
            arrivals[row.edit_set].append(Arrival(outcome.edit, row.seq, policy, outcome.compared))
    for edit_set in sorted(made):
        kept, uncompared = judge(tx, edit_set, arrivals[edit_set])
        again += uncompared
        gists = {edit: gist for edit, gist in made[edit_set].items() if edit in kept}
        settle(tx, edit_set, list(dict.fromkeys(edit_id for edit_id, _ in gists)), gists)
    return again


def requeue_stale(tx: Transaction, fingerprint: str) -> int:
    """Gists of other models leave the snapshots and are made again; from now on only this model's are accepted."""
    tx.conn.execute(delete(meta).where(meta.c.key == MODEL))
    tx.conn.execute(insert(meta).values(key=MODEL, value=fingerprint))
    stale: dict[str, list[EditKey]] = defaultdict(list)
    active: dict[str, list[EditKey]] = defaultdict(list)
    query = (
        select(e.edit_set, e.active_version, v.edit_id, v.version)
        .join_from(edit_versions, edits, e.id == v.edit_id)
        .where(v.status == EditStatus.READY, v.fingerprint != fingerprint)
        .order_by(v.seq)
    )
    for row in tx.conn.execute(query):
        stale[row.edit_set].append((row.edit_id, row.version))
        if row.active_version == row.version:
            active[row.edit_set].append((row.edit_id, row.version))
    for edit_set in sorted(stale):
        _requeue(tx, edit_set, stale[edit_set], active[edit_set])
    return sum(map(len, stale.values()))


def _waiting(conn: Connection, outcomes: Sequence[Captured]) -> Iterator[tuple[Captured, AnyRow]]:
    """Each outcome whose edit version still waits, once, with edit_set, seq and on_conflict."""
    by_ref = {outcome.edit: outcome for outcome in reversed(outcomes)}
    for part in chunks(list(by_ref)):
        query = (
            select(e.id, e.edit_set, v.version, v.seq, v.on_conflict)
            .join_from(edits, edit_versions, v.edit_id == e.id)
            .where(e.id.in_([edit_id for edit_id, _ in part]), v.status.in_(WAITING))
            .order_by(v.seq)
        )
        for row in conn.execute(query).all():
            if (row.id, row.version) in by_ref:
                yield by_ref[row.id, row.version], row


def _check(outcome: Captured, expected: str | None) -> MadeGist | str:
    """The gist, or why it must not be used."""
    if outcome.error is not None or outcome.blob is None:
        return outcome.error or "the worker returned neither a gist nor a reason"
    try:
        header = read_header(outcome.blob)
    except GistFormatError as error:
        return error.message
    if header.get("gists") != [[outcome.edit_id, outcome.version]]:
        return f"the gist names {header.get('gists')!r}, not this edit version"
    fingerprint = str(header.get("fingerprint"))
    if expected is not None and fingerprint != expected:
        raise Unavailable(
            f"a gist was made by model {fingerprint}, and the edit store accepts those of {expected}: end "
            "the worker that made it"
        )
    return MadeGist(outcome.blob, fingerprint)


def _fail(tx: Transaction, outcome: Captured, reason: str) -> None:
    tx.conn.execute(
        update(edit_versions)
        .where(v.edit_id == outcome.edit_id, v.version == outcome.version)
        .values(status=EditStatus.FAILED, status_reason=reason, updated_at=tx.now)
    )


def _requeue(tx: Transaction, edit_set: str, stale: Sequence[EditKey], active: Sequence[EditKey]) -> None:
    """Take these gists out of their edit set, as one version of it. A page for a replica must not end before that
    version, because their gists are deleted."""
    floor = None
    if active:
        floor = append(tx, edit_set, removed=active)
        tx.conn.execute(update(edit_sets).where(edit_sets.c.id == edit_set).values(floor=floor))
    newer_waits = [
        edit_id
        for part in chunks(stale)
        for edit_id in tx.conn.scalars(
            select(v.edit_id).where(v.edit_id.in_([edit_id for edit_id, _ in part]), v.status.in_(WAITING))
        )
    ]
    superseded = [ref for ref in stale if ref[0] in set(newer_waits)]
    mark(tx, stale, status=EditStatus.PENDING, set_version=None)
    mark(tx, superseded, status=EditStatus.SUPERSEDED, set_version=floor)
    for part in chunks(stale):
        let_go(tx.conn, in_pairs(v.edit_id, v.version, part))
    tx.conn.execute(
        update(edit_versions).where(_THIS_VERSION).values(blob=None, gist_bytes=0, fingerprint=None),
        [{"b_edit": edit_id, "b_version": version} for edit_id, version in stale],
    )
    tx.conn.execute(
        update(edits).where(e.id == bindparam("b_edit")).values(active_version=None),
        [{"b_edit": edit_id} for edit_id, _ in stale],
    )
    tx.changed.update(edit_id for edit_id, _ in stale)
