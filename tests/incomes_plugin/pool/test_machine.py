"""The pool against plain dicts: commits, holders, retirement and forgetting, in any order."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from incomes_plugin.gist.edit import EditKey
from incomes_plugin.gist.types import Gist
from incomes_plugin.pool.gists import PooledSnapshot
from incomes_plugin.pool.table import gist_rows
from tests.incomes_plugin.pool.small import check_table, decoded, gist, pool_of

Content = dict[EditKey, tuple[Gist, int]]
ROW_BYTES = 16 * 8 * 4
SETS = ("red", "blue")


@dataclass
class Set:
    """What an edit set should be: id and content of its newest snapshot, and the age of the next edit."""

    head: str | None = None
    content: Content = field(default_factory=dict)
    next_age: int = 0


class PoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pool = pool_of()
        self.sets = {name: Set() for name in SETS}
        self.living: dict[str, tuple[PooledSnapshot, Content]] = {}
        self.held: list[tuple[PooledSnapshot, Content]] = []
        self.number = 0

    holds = Bundle("holds")

    @rule(
        name=st.sampled_from(SETS),
        sizes=st.lists(st.integers(1, 40), max_size=6),
        remove=st.lists(st.integers(0, 99), max_size=6),
        replace=st.booleans(),
        with_ages=st.booleans(),
        same_id=st.booleans(),
    )
    def commit(
        self, name: str, sizes: list[int], remove: list[int], replace: bool, with_ages: bool, same_id: bool
    ) -> None:
        edits = self.sets[name]
        removed = sorted({list(edits.content)[i % len(edits.content)] for i in remove} if edits.content else set())
        added = []
        for place, size in enumerate(sizes):
            self.number += 1
            edit_id = removed[place][0] if replace and place < len(removed) else f"e{self.number}"
            added.append(gist(edit_id, size, version=self.number))
        ages = [1000 - self.number - i for i in range(len(added))] if with_ages else []
        content = {edit: kept for edit, kept in edits.content.items() if edit not in removed}
        given = ages or [edits.next_age + i for i in range(len(added))]
        content |= {g.edit: (g, age) for g, age in zip(added, given, strict=True)}
        new_id = edits.head if same_id and edits.head else f"{name}-{self.number}-{len(content)}-{len(self.living)}"
        found = self.pool.commit(name, edits.head, new_id, len(content), added, removed, ages)
        self.living[new_id] = (found, content)
        edits.head, edits.content = new_id, content
        edits.next_age = max([edits.next_age - 1, *given]) + 1

    @rule(
        data=st.data(), sizes=st.lists(st.integers(1, 40), max_size=3), remove=st.lists(st.integers(0, 99), max_size=3)
    )
    def label(self, data: st.DataObject, sizes: list[int], remove: list[int]) -> None:
        """A state beside the newest one, from any that is there."""
        if not self.living:
            return
        base = data.draw(st.sampled_from(sorted(self.living)))
        snapshot, before = self.living[base]
        removed = sorted({list(before)[i % len(before)] for i in remove} if before else set())
        added = []
        for size in sizes:
            self.number += 1
            added.append(gist(f"e{self.number}", size, version=self.number))
        content = {edit: kept for edit, kept in before.items() if edit not in removed}
        content |= {g.edit: (g, 5000 + i) for i, g in enumerate(added)}
        if not content:
            return
        new_id = f"{snapshot.edit_set}-label-{self.number}-{len(self.living)}-{len(self.held)}"
        if new_id in self.living:
            assert self.pool.commit(snapshot.edit_set, None, new_id, 1, [], [], label="x") is self.living[new_id][0]
            return
        ages = range(5000, 5000 + len(added))
        found = self.pool.commit(snapshot.edit_set, base, new_id, len(content), added, removed, ages, label="x")
        assert found.table.arena is not snapshot.table.arena
        self.living[new_id] = (found, content)

    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        if not self.living:
            return
        snapshot_id = data.draw(st.sampled_from(sorted(self.living)))
        self.pool.retire(snapshot_id)
        del self.living[snapshot_id]
        for edits in self.sets.values():
            if edits.head == snapshot_id:
                edits.__init__()

    @rule(name=st.sampled_from(SETS))
    def forget(self, name: str) -> None:
        self.pool.forget(name)
        self.sets[name].__init__()

    @rule(target=holds, data=st.data())
    def acquire(self, data: st.DataObject):
        if not self.living:
            return multiple()
        snapshot_id = data.draw(st.sampled_from(sorted(self.living)))
        hold = (self.pool.acquire(snapshot_id), self.living[snapshot_id][1])
        self.held.append(hold)
        return hold

    @rule(hold=consumes(holds))
    def release(self, hold: tuple[PooledSnapshot, Content]) -> None:
        self.held.remove(hold)
        self.pool.release(hold[0])

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        """What a request picked stays readable, whatever has happened to its edit since."""
        readable = [(s, c) for s, c in [*self.living.values(), *self.held] if c]
        if readable:
            snapshot, content = data.draw(st.sampled_from(range(len(readable))).map(readable.__getitem__))
            row = data.draw(st.integers(0, len(content) - 1))
            picked = self.pool.picked(snapshot, row)
            assert picked.edit == snapshot.table.edits[row]
            assert (picked.keys == decoded(content[picked.edit][0])[0]).all()

    @invariant()
    def every_snapshot_that_somebody_reads_is_right(self) -> None:
        for snapshot, content in [*self.living.values(), *self.held]:
            assert snapshot.num_edits == len(content)
            check_table(snapshot.table, content)

    @invariant()
    def bytes_are_exact(self) -> None:
        reached = {id(g): g for _, content in [*self.living.values(), *self.held] for g, _ in content.values()}
        usage = self.pool.usage()
        assert usage.edits == len(reached)
        with_keys = {(s.line, id(g)): g for s, c in [*self.living.values(), *self.held] for g, _ in c.values()}
        keys = sum(gist_rows(g) * ROW_BYTES for g in with_keys.values())
        assert usage.used_bytes == keys + sum(g.num_bytes for g in reached.values())
        assert usage.snapshots == len(self.living)

    def teardown(self) -> None:
        for snapshot_id in list(self.living):
            self.pool.retire(snapshot_id)
        for snapshot, _ in self.held:
            self.pool.release(snapshot)
        usage = self.pool.usage()
        assert (usage.used_bytes, usage.edits, usage.snapshots, usage.device_bytes_used) == (0, 0, 0, 0)


TestPool = pytest.mark.slow(PoolMachine.TestCase)
TestPool.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
