"""Answers between workers and server: errors keep their type, disagreement is fatal, nothing raises in a worker."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from incomes_plugin import errors
from incomes_plugin.pool.snapshot import SnapshotDelta, SnapshotRef
from incomes_plugin.vllm.guard import check_request, observe_rpc
from incomes_plugin.vllm.wire import answer_error, answers_errors, one_answer, pack_delta, unpack_delta


def all_errors(cls: type[errors.IncomesError] = errors.IncomesError) -> list[type[errors.IncomesError]]:
    return [cls, *(e for sub in cls.__subclasses__() for e in all_errors(sub))]


@pytest.mark.parametrize("cls", all_errors()[1:])
def test_every_error_survives(cls: type[errors.IncomesError]) -> None:
    @answers_errors
    def method() -> dict[str, Any]:
        raise cls("why", param="field")

    with pytest.raises(errors.IncomesError, match="why") as caught:
        one_answer("m", [method(), method()])
    assert type(caught.value) is cls
    assert caught.value.param == "field"


def test_an_unexpected_error_is_an_answer_too() -> None:
    @answers_errors
    def method() -> dict[str, Any]:
        raise ZeroDivisionError("oops")

    assert isinstance(answer_error(method()), errors.EngineLost)


def test_ranks_that_disagree_lose_the_engine() -> None:
    good, bad = {"ok": True}, {"ok": False, "code": "pool_full", "message": "full"}
    with pytest.raises(errors.EngineLost, match="full"):
        one_answer("m", [good, bad])
    with pytest.raises(errors.PoolFull):
        one_answer("m", [bad, bad])
    with pytest.raises(errors.EngineLost):
        one_answer("m", [])


def test_a_delta_is_the_same_on_the_other_side() -> None:
    snapshot = SnapshotRef.empty("eset").advance([("edit_a", 1), ("edit_b", 2)], [])
    delta = SnapshotDelta("snap_0", snapshot, (b"one\xff", b"two"), (("edit_c", 1),), (7, 8))
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(pack_delta(delta, ["snap_1"])))
    assert unpack_delta(sent) == (delta, ["snap_1"])


class Core:
    """Stands for the attribute dictionary of an EngineCore."""


class Request:
    def __init__(self, snapshot: str) -> None:
        self.sampling_params = type("P", (), {"extra_args": {"incomes_snapshot": snapshot}})()


def test_the_guard_follows_commits_and_retirements() -> None:
    core = Core()
    with pytest.raises(errors.SelectionFailed):
        check_request(core, Request("a"))
    first, second = SnapshotRef("eset", 1, "1" * 64, 1), SnapshotRef("eset", 2, "2" * 64, 1)
    commit = pack_delta(SnapshotDelta(None, first, (b"blob",)), [])
    observe_rpc(core, "incomes_commit", (commit,), [{"ok": True}, {"ok": True}])
    check_request(core, Request(first.id))
    commit = pack_delta(SnapshotDelta(first.id, second), [first.id])
    observe_rpc(core, "incomes_commit", (commit,), [{"ok": True}, {"ok": False}])
    for name in (first.id, second.id):
        with pytest.raises(errors.SelectionFailed):
            check_request(core, Request(name))
