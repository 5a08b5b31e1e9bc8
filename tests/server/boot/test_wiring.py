"""A store delta becomes an engine delta with the same identity of content."""

from dataclasses import replace

from incomes_server.boot.wiring import apply_to, snapshot_delta
from incomes_server.edits.model import Delta

from incomes_plugin.pool.snapshot import EMPTY_DIGEST, SnapshotRef, add_to_digest

DIGEST = add_to_digest(EMPTY_DIGEST, "edit_b", 1)
DELTA = Delta("eset_1", "acme", 1, 2, DIGEST, 1, 2, (("edit_b", 1, b"blob"),), (("edit_a", 1),), (7,))


def test_base_is_what_the_engine_has():
    current = SnapshotRef("eset_1", 1, add_to_digest(EMPTY_DIGEST, "edit_a", 1), 1)
    delta = snapshot_delta(DELTA, current)
    assert delta.base == current.id
    assert delta.snapshot == SnapshotRef("eset_1", 2, DIGEST, 1)
    assert (delta.added, delta.removed, delta.ages) == ((b"blob",), (("edit_a", 1),), (7,))


def test_an_engine_without_the_set_starts_empty():
    assert snapshot_delta(DELTA, None).base is None


async def test_a_deleted_set_leaves_the_engine():
    class Engine:
        dropped = ()

        async def drop(self, edit_set):
            self.dropped += (edit_set,)

    engine = Engine()
    await apply_to(engine)(replace(DELTA, deleted=True))
    assert engine.dropped == ("eset_1",)
