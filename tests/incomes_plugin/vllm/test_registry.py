"""SnapshotRegistry: what may be pinned, what must stay, what may go."""

from __future__ import annotations

import pytest

from incomes_plugin.errors import SnapshotNotFound, SnapshotRetired
from incomes_plugin.pool.snapshot import SnapshotRef
from incomes_plugin.selection.question import PromptTemplate
from incomes_plugin.vllm.registry import SnapshotRegistry


def snapshot(version: int, edit_set: str = "eset_a") -> SnapshotRef:
    return SnapshotRef(edit_set, version, f"{version:064x}", version)


@pytest.fixture
def live() -> set[str]:
    return set()


@pytest.fixture
def registry(live: set[str]) -> SnapshotRegistry:
    return SnapshotRegistry(lambda: live, PromptTemplate((), (), (), ()))


def test_a_commit_moves_current_and_keeps_what_is_pinned(registry: SnapshotRegistry, live: set[str]) -> None:
    registry.committed(snapshot(1))
    live.add("r1")
    registry.pin("r1", snapshot(1))
    registry.committed(snapshot(2))
    assert registry.current("eset_a") == snapshot(2)
    assert registry.unused() == []
    assert registry.find("eset_a", snapshot(1).id) == snapshot(1)
    live.clear()
    assert registry.unused() == [snapshot(1).id]
    assert registry.num_superseded == 0
    with pytest.raises(SnapshotRetired):
        registry.find("eset_a", snapshot(1).id)


def test_a_request_that_pins_twice_under_one_id_keeps_both(registry: SnapshotRegistry, live: set[str]) -> None:
    registry.committed(snapshot(1))
    live.add("r")
    registry.pin("r", snapshot(1))
    registry.committed(snapshot(2))
    registry.pin("r", snapshot(2))
    registry.committed(snapshot(3))
    assert registry.unused() == []


def test_a_snapshot_of_another_edit_set_is_not_found(registry: SnapshotRegistry) -> None:
    registry.committed(snapshot(1))
    with pytest.raises(SnapshotNotFound):
        registry.find("eset_b", snapshot(1).id)
    with pytest.raises(SnapshotNotFound):
        registry.pin("r", SnapshotRef("eset_b", 1, snapshot(1).digest, 1))


def test_a_retired_content_may_come_back(registry: SnapshotRegistry) -> None:
    registry.committed(snapshot(1))
    registry.committed(snapshot(2))
    assert registry.unused(keep=snapshot(1).id) == []
    registry.committed(snapshot(1))
    assert registry.unused() == [snapshot(2).id]
    assert registry.find("eset_a", snapshot(1).id) == snapshot(1)


def test_dropping_a_set_retires_it_once_unpinned(registry: SnapshotRegistry, live: set[str]) -> None:
    registry.committed(snapshot(1))
    live.add("r")
    registry.pin("r", snapshot(1))
    registry.dropped("eset_a")
    assert registry.current("eset_a") is None
    assert registry.unused() == []
    live.clear()
    assert registry.unused() == [snapshot(1).id]


def test_dead_pins_do_not_pile_up(registry: SnapshotRegistry) -> None:
    registry.committed(snapshot(1))
    for i in range(2000):
        registry.pin(f"r{i}", snapshot(1))
    assert len(registry._pins) < 600


def test_a_label_keeps_its_snapshot_while_the_set_goes_on(registry: SnapshotRegistry) -> None:
    registry.committed(snapshot(1))
    registry.committed(snapshot(1), "eset_a@production")
    registry.committed(snapshot(2))
    assert registry.unused() == []
    assert registry.num_superseded == 0
    assert (registry.current("eset_a"), registry.current("eset_a@production")) == (snapshot(2), snapshot(1))
    assert registry.edit_sets == {"eset_a": snapshot(2)}
    assert registry.holds(snapshot(1))
    registry.dropped("eset_a@production")
    assert registry.unused() == [snapshot(1).id]
    assert not registry.holds(snapshot(1))


def test_a_copy_of_a_state_follows_the_switch_of_its_set(registry: SnapshotRegistry) -> None:
    registry.switched("eset_a@?copy", None)
    registry.switched("eset_a", "server")
    assert (registry.off("eset_a@?copy"), registry.off("eset_b@?copy")) == ("server", None)
    registry.dropped("eset_a@?copy")
    assert registry.off("eset_a") == "server"
