"""The store under writes in any order: its log, the rules of the lifecycle, and a replica that follows page by page."""

import tempfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from incomes_server.edits import TRANSITIONS, EditStatus, NewEdit
from incomes_server.edits.lifecycle import in_force
from incomes_server.store import commands
from incomes_server.store.check import problems
from incomes_server.store.compaction import compact
from incomes_server.store.core import EditStore
from incomes_server.store.edit_sets import get_edit_set
from incomes_server.store.edits import get_edit, list_edits
from incomes_server.store.labels import heads as label_heads
from incomes_server.store.labels import list_labels
from incomes_server.store.labels import read_delta as read_label
from incomes_server.store.log import net_changes, read_delta
from incomes_server.store.outcomes import pending_jobs
from incomes_server.store.rows import Transaction
from incomes_server.store.schema import edit_sets, edit_versions, edits
from sqlalchemy import select

from incomes_plugin.errors import EditConflict, EditNotFound, NotReady, SnapshotNotFound, SnapshotRetired
from incomes_plugin.gist import read_header
from incomes_plugin.gist.edit import Captured
from incomes_plugin.pool.snapshot import EMPTY_DIGEST, SnapshotRef, add_to_digest, label_key
from tests.server.gists import keys_of, outcome_of

MODELS = ("mf_a", "mf_b")
NOW = 1_800_000_000
LABELS = ("production", "staging")
MEMORY = Path("/dev/shm")  # where it exists, thousands of synced commits cost nothing


def snapshot_id(edit_set, content):
    return SnapshotRef.empty(edit_set).advance(list(content), []).id


@contextmanager
def in_memory():
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield f"sqlite:///{folder}/edits.db"


class StoreMachine(RuleBasedStateMachine):
    database = staticmethod(in_memory)
    live = Bundle("live")
    gone = Bundle("gone")

    @initialize()
    def open(self):
        self.opened, self.now = ExitStack(), NOW
        self.store = EditStore(self.opened.enter_context(self.database()), clock=lambda: self.now)
        self.edit_set = self.store.write(commands.EnsureEditSet("p", "default")).id
        self.model = MODELS[0]
        self.store.write(commands.RequeueStale(self.model))
        self.requests = 0
        self.status = {}
        self.replica, self.position = {}, 0
        self.labels, self.followed = {}, {}  # what each label should point at; its move and content at the replica

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()
            self.opened.close()

    def request_id(self):
        self.requests += 1
        return f"r{self.requests}"

    @rule(target=live, count=st.integers(1, 4))
    def add(self, count):
        new = tuple(NewEdit(f"text {i}", (1, 2, i)) for i in range(count))
        command = commands.AddEdits("p", self.request_id(), "default", new)
        edits = self.store.write(command)
        assert self.store.write(command) == edits
        return multiple(*(edit.id for edit in edits))

    @rule(start=st.none() | st.integers(-2, 6), length=st.none() | st.integers(1, 6))
    def add_for_a_time(self, start, length):
        """It may be gone when other rules would touch it, so they do not."""
        begin = None if start is None else self.now + start
        end = None if length is None else max(self.now, begin or 0) + length
        new = NewEdit("for a time", (3, 2, 1), effective_from=begin, expires_at=end)
        self.store.write(commands.AddEdits("p", self.request_id(), "default", (new,)))

    @rule(edit=live, start=st.integers(1, 6))
    def replace_later(self, edit, start):
        new = NewEdit("later", (9, 9), effective_from=self.now + start)
        self.store.write(commands.ReplaceEdit("p", self.request_id(), edit, new))

    @rule(edit=live, on=st.booleans())
    def switch(self, edit, on):
        head = self.store.read(get_edit_set, "p", "default").snapshot.version
        disabled = edit in self.store.read(read_delta, self.edit_set, head).barred
        try:
            self.store.write(commands.SwitchEdit("p", self.request_id(), edit, on))
        except EditConflict:
            return
        moved = self.store.read(get_edit_set, "p", "default").snapshot.version - head
        assert moved == (on == disabled), "one step for a switch that moves"

    @rule(seconds=st.integers(1, 4))
    def wait(self, seconds):
        self.now += seconds
        self.store.write(commands.ApplyDue())

    @rule(edit=live)
    def replace(self, edit):
        before = self.store.read(get_edit, "p", edit)
        after = self.store.write(commands.ReplaceEdit("p", self.request_id(), edit, NewEdit("new", (9,))))
        assert (after.version, after.status) == (before.version + 1, EditStatus.PENDING)

    @rule(target=live, named=st.lists(consumes(live), min_size=1, max_size=2, unique=True))
    def supersede(self, named):
        new = NewEdit("instead", (4, 2), supersedes=tuple(named))
        (edit,) = self.store.write(commands.AddEdits("p", self.request_id(), "default", (new,)))
        assert edit.supersedes == tuple(named)
        return edit.id

    @rule(target=gone, edit=consumes(live))
    def retire(self, edit):
        assert self.store.write(commands.RetireEdit("p", self.request_id(), edit)).status is EditStatus.RETIRED
        return edit

    @rule(target=live, edit=consumes(gone))
    def restore(self, edit):
        before = self.store.read(get_edit, "p", edit)
        command = commands.RestoreEdit("p", self.request_id(), edit, before.version, (5, 6))
        after = self.store.write(command)
        assert (after.version, after.text, after.status) == (before.version + 1, before.text, EditStatus.PENDING)
        return edit

    @rule(edit=st.one_of(consumes(live), consumes(gone)))
    def erase(self, edit):
        try:
            after = self.store.write(commands.EraseEdit("p", self.request_id(), edit))
        except EditConflict:
            assert self.store.read(list_labels, "p", "default"), "only a label keeps an edit from being erased"
            return
        assert (after.status, after.text, after.num_tokens) == (EditStatus.ERASED, "", 0)

    @rule(limit=st.integers(1, 5))
    def compress(self, limit):
        jobs = self.store.read(pending_jobs, limit)
        outcomes = tuple(outcome_of(job.edit_id, job.version, fingerprint=self.model) for job in jobs)
        head = self.store.read(get_edit_set, "p", "default").snapshot.version
        self.store.write(commands.RecordOutcomes(outcomes))
        self.store.write(commands.RecordOutcomes(outcomes))
        moved = self.store.read(get_edit_set, "p", "default").snapshot.version - head
        assert moved in {0, bool(jobs)}, "one step for all, or none where all are held"

    @rule(edit=live, version=st.integers(1, 3), good=st.booleans())
    def late_outcome(self, edit, version, good):
        outcome = outcome_of(edit, version, fingerprint=self.model)
        if not good:
            outcome = Captured(edit, version, None, error="broken")
        self.store.write(commands.RecordOutcomes((outcome,)))

    @rule()
    def mark(self):
        refs = tuple(job.edit for job in self.store.read(pending_jobs, 2))
        self.store.write(commands.MarkCompressing(refs))

    @rule(model=st.sampled_from(MODELS))
    def boot(self, model):
        self.store.write(commands.RequeueStale(model))
        if model != self.model:
            self.model, self.replica, self.position = model, {}, 0  # another engine starts with an empty pool
            self.followed = {}

    def oldest(self):
        return self.store.read(lambda conn: conn.scalar(select(edit_sets.c.oldest)))

    @rule(name=st.sampled_from(LABELS), back=st.integers(0, 6))
    def move_label(self, name, back):
        head = self.store.read(get_edit_set, "p", "default").snapshot
        version = max(0, head.version - back)
        if 0 < version < self.oldest():
            with pytest.raises(SnapshotNotFound):
                self.store.write(commands.MoveLabel("p", self.request_id(), "default", name, str(version)))
            return
        before = self.labels.get(name)
        command = commands.MoveLabel("p", self.request_id(), "default", name, str(version))
        if (before is None or before.snapshot.version != version) and self.lacks_gists(version):
            with pytest.raises(SnapshotRetired):
                self.store.write(command)
            return
        label = self.store.write(command)
        assert self.store.write(command) == label
        assert label.move == (before.move + (before.snapshot.version != version) if before else label.move)
        self.labels[name] = label

    @rule(name=st.sampled_from(LABELS))
    def delete_label(self, name):
        if self.labels.pop(name, None):
            self.store.write(commands.DeleteLabel("p", self.request_id(), "default", name))

    @rule(name=st.sampled_from(LABELS))
    def follow_label(self, name):
        """All at once, forwards or backwards, from what the replica has of the label or of the set."""
        key = label_key(self.edit_set, name)
        move, content = self.followed.get(name, (0, None))
        if key not in self.store.read(label_heads):
            return
        try:
            delta = self.store.read(read_label, key, move, self.position)
        except NotReady:
            assert self.lacks_gists(self.labels[name].snapshot.version)
            return
        if delta.deleted:
            assert name not in self.labels
            self.followed.pop(name, None)
            return
        bases = [dict(self.replica)] + ([dict(content)] if content is not None else [])
        base = next(b for b in bases if (snapshot_id(self.edit_set, b) if b else None) == delta.base)
        for pair in delta.removed:
            del base[pair]
        for pair, blob in zip(keys_of(delta.added), delta.added, strict=True):
            assert pair not in base
            base[pair] = blob
        assert snapshot_id(self.edit_set, base) == delta.snapshot.id == self.labels[name].snapshot.id
        assert {read_header(blob)["fingerprint"] for blob in base.values()} <= {self.model}
        self.followed[name] = (delta.move, base)

    @rule(back=st.integers(0, 4), step_rows=st.sampled_from([1, 2, 5, 256]), steps=st.integers(1, 9))
    def compact(self, back, step_rows, steps):
        """Up to where the replica is at most: the actor sees to that."""
        up_to = max(0, self.store.read(get_edit_set, "p", "default").snapshot.version - back)
        up_to = min(up_to, self.position) if self.position else up_to
        for _ in range(steps):
            with self.store._writer.begin() as conn:
                compact(Transaction(conn, 0), self.edit_set, up_to, step_rows)

    def lacks_gists(self, version):
        """Whether a member of a state has no gist of this model."""
        added, _ = self.store.read(net_changes, self.edit_set, 0, version)
        found = self.store.read(lambda conn: conn.execute(select(edit_versions)).all())
        whole = {(v.edit_id, v.version) for v in found if v.blob is not None and v.fingerprint == self.model}
        return not whole.issuperset(added)

    @rule(page_bytes=st.sampled_from([1, 700, 10_000]), pages=st.integers(1, 4))
    def follow(self, page_bytes, pages):
        for _ in range(pages):
            delta = self.store.read(read_delta, self.edit_set, self.position, page_bytes=page_bytes)
            for pair in delta.removed:
                del self.replica[pair]
            for key, blob in zip(keys_of(delta.added), delta.added, strict=True):
                assert key not in self.replica
                self.replica[key] = blob
            self.position = delta.snapshot.version
            self.check_replica(delta)
            if delta.snapshot == self.store.read(get_edit_set, "p", "default").snapshot:
                break

    def check_replica(self, delta):
        digest = EMPTY_DIGEST
        for (edit_id, version), blob in self.replica.items():
            digest = add_to_digest(digest, edit_id, version)
            assert read_header(blob)["fingerprint"] == self.model
        assert (digest, len(self.replica)) == (delta.snapshot.digest, delta.snapshot.num_edits)

    @invariant()
    def labels_are_where_they_were_put(self):
        found = {label.name: label for label in self.store.read(list_labels, "p", "default")}
        assert {n: (x.move, x.snapshot) for n, x in found.items()} == {
            n: (x.move, x.snapshot) for n, x in self.labels.items()
        }

    @invariant()
    def log_and_present_agree(self):
        assert self.store.read(problems) == []

    @invariant()
    def every_step_is_a_transition(self):
        status = {}
        for edit in self.store.read(list_edits, "p", edit_set=None, status=None, limit=99, after=None, order="asc")[0]:
            for version in range(1, edit.version + 1):
                with suppress(EditNotFound):
                    status[edit.id, version] = self.store.read(get_edit, "p", edit.id, version).status
            assert (edit.id, edit.version) in status
        for ref, before in self.status.items():
            if ref not in status:
                assert before is EditStatus.SUPERSEDED  # and forgotten
                continue
            assert status[ref] in {before} | TRANSITIONS[before] | {
                t for s in TRANSITIONS[before] for t in TRANSITIONS[s]
            }
        self.times_are_kept()
        self.status = status

    def times_are_kept(self):
        """Of each edit the newest ready version that is in force is in the snapshot, and no other."""
        v, e = edit_versions.c, edits.c
        query = select(v.edit_id, v.version, v.status, v.effective_from, v.expires_at, e.active_version, e.disabled_at)
        with self.store._reader.begin() as conn:
            rows = conn.execute(query.join_from(edit_versions, edits, e.id == v.edit_id).order_by(v.seq)).all()
        expected = dict.fromkeys(row.edit_id for row in rows)
        for row in rows:
            on = row.status == EditStatus.READY and row.disabled_at is None
            if on and in_force(row.effective_from, row.expires_at, self.now):
                expected[row.edit_id] = row.version
        assert {row.edit_id: row.active_version for row in rows} == expected


STEPS = settings(max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_store_machine():
    run_state_machine_as_test(StoreMachine, settings=STEPS)


def test_store_machine_on_postgresql(postgres):
    class OnPostgres(StoreMachine):
        database = staticmethod(postgres.database)

    run_state_machine_as_test(OnPostgres, settings=settings(STEPS, max_examples=8))
