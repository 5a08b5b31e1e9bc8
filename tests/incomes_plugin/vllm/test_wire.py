"""Answers between workers and server: errors keep their type, disagreement is fatal, nothing raises in a worker."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import msgspec
import pytest

from incomes_plugin import errors
from incomes_plugin.figures import RoutingFigures
from incomes_plugin.gist.edit import Captured, Compared, FoundConflict
from incomes_plugin.pool.gists import PoolUsage
from incomes_plugin.pool.snapshot import SnapshotDelta, SnapshotRef
from incomes_plugin.selection.attribution import Attribution
from incomes_plugin.vllm.guard import check_request, observe_rpc
from incomes_plugin.vllm.status import WorkerStatus
from incomes_plugin.vllm.traces import RequestTrace
from incomes_plugin.vllm.wire import (
    answer_error,
    answers_errors,
    one_answer,
    pack_captures,
    pack_compared,
    pack_delta,
    pack_trace,
    unpack_captures,
    unpack_compared,
    unpack_delta,
    unpack_status,
    unpack_trace,
)


def all_errors(cls: type[errors.IncomesError] = errors.IncomesError) -> list[type[errors.IncomesError]]:
    """Those of the plugin; what the server derives from them arrives as what it is derived from."""
    own = [sub for sub in cls.__subclasses__() if sub.__module__.startswith("incomes_plugin.")]
    return [cls, *(e for sub in own for e in all_errors(sub))]


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


def test_a_rank_that_could_not_compare_does_not_lose_the_engine() -> None:
    found = FoundConflict("edit_a", 1, "contradiction", 0.9)
    told = [pack_compared([Compared(3, (), (replace(found, score=score),))]) for score in (0.9, 0.9000001)]
    answers = [{"ok": True, **answer} for answer in (*told, pack_compared([None]))]
    assert unpack_compared(one_answer("compare", answers)) == [Compared(3, (), (found,))]
    assert unpack_compared(one_answer("compare", answers[::-1])) == [None]


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


def sent(packed: dict[str, Any]) -> dict[str, Any]:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(packed))


def test_what_a_worker_says_is_the_same_on_the_other_side() -> None:
    figures = RoutingFigures()
    figures.observe(0.3, picks=2)
    status = WorkerStatus("f" * 64, "0.32.0", "v1", (2, 3), 7, PoolUsage(100, 50, 60, 2, 1, 30), figures)
    assert unpack_status(sent({"ok": True, **asdict(status)})) == status
    captures = [Captured("edit_a", 1, b"gist\xff"), Captured("edit_b", 2, None, "too long")]
    assert unpack_captures(sent(pack_captures(captures))) == captures
    trace = RequestTrace(
        Attribution(0.4, [("edit_a", 1, 0.6)]),
        {(0, 0): Attribution(1.0, []), (1, 2): Attribution(0.5, [("edit_b", 3, 0.5)])},
    )
    assert unpack_trace(sent(pack_trace(trace))) == trace
    assert unpack_trace(sent(pack_trace(None))) is None


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
