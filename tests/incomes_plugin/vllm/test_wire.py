"""Answers between workers and server: errors keep their type, disagreement is fatal, nothing raises in a worker."""

from __future__ import annotations

from typing import Any

import pytest

from incomes_plugin import errors
from incomes_plugin.vllm.guard import check_request, observe_rpc
from incomes_plugin.vllm.wire import answers_errors, error_of, one_answer


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

    assert isinstance(error_of(method()), errors.EngineLost)


def test_ranks_that_disagree_lose_the_engine() -> None:
    good, bad = {"ok": True}, {"ok": False, "code": "pool_full", "message": "full"}
    with pytest.raises(errors.EngineLost, match="full"):
        one_answer("m", [good, bad])
    with pytest.raises(errors.PoolFull):
        one_answer("m", [bad, bad])
    with pytest.raises(errors.EngineLost):
        one_answer("m", [])


class Core:
    """Stands for the attribute dictionary of an EngineCore."""


class Request:
    def __init__(self, snapshot: str) -> None:
        self.sampling_params = type("P", (), {"extra_args": {"incomes_snapshot": snapshot}})()


def test_the_guard_follows_commits_and_retirements() -> None:
    core = Core()
    with pytest.raises(errors.SelectionFailed):
        check_request(core, Request("a"))
    observe_rpc(core, "incomes_commit", ({"retire": [], "snapshot": "a"},), [{"ok": True}, {"ok": True}])
    check_request(core, Request("a"))
    observe_rpc(core, "incomes_commit", ({"retire": ["a"], "snapshot": "b"},), [{"ok": True}, {"ok": False}])
    for name in ("a", "b"):
        with pytest.raises(errors.SelectionFailed):
            check_request(core, Request(name))
