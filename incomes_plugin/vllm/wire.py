"""What travels between the server process and the workers: plain dicts of str, int, list, bytes.

A worker answers `{"ok": True, ...}` or `{"ok": False, "code": ..., "message": ..., "param": ...}` and never raises.
vLLM's executor stops reading at the first worker that raises, and would take the answers left in the pipes for those of
later calls.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from pydantic import TypeAdapter

from incomes_plugin.errors import EngineLost, IncomesError
from incomes_plugin.gist.edit import Captured, Compared
from incomes_plugin.pool.snapshot import SnapshotDelta
from incomes_plugin.selection.attribution import Attribution
from incomes_plugin.vllm.status import WorkerStatus
from incomes_plugin.vllm.traces import Choice, RequestTrace

RpcAnswer = dict[str, Any]
_DELTA = TypeAdapter(SnapshotDelta[bytes])
_STATUS = TypeAdapter(WorkerStatus)
_CAPTURES = TypeAdapter(list[Captured])
_COMPARED = TypeAdapter(list[Compared | None])
_MEAN = TypeAdapter(Attribution)
_ANSWERS = TypeAdapter(list[tuple[Choice, Attribution]])
WorkerMethod = TypeVar("WorkerMethod", bound=Callable[..., RpcAnswer])


def answers_errors(method: Callable[..., RpcAnswer]) -> Callable[..., RpcAnswer]:
    """Turn what a worker method raises into an answer."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> RpcAnswer:
        try:
            return {"ok": True, **method(*args, **kwargs)}
        except IncomesError as error:
            return {"ok": False, "code": error.code, "message": error.message, "param": error.param}
        except Exception as error:  # noqa: BLE001  every error must become an answer, see the module docstring
            return {"ok": False, "code": EngineLost.code, "message": f"{type(error).__name__}: {error}"}

    return call


def one_answer(method: str, answers: Sequence[RpcAnswer]) -> RpcAnswer:
    """The answer that all workers gave.

    Raises:
        IncomesError: the typed error every rank answered.
        EngineLost: ranks disagree, so their pools may differ.
    """
    failed = [a for a in answers if not a.get("ok")]
    if not failed and answers:
        if any(_comparable(answer) != _comparable(answers[0]) for answer in answers):
            raise EngineLost(f"{method}: ranks disagree in what they answer; restart the server")
        return answers[0]
    if len(failed) != len(answers) or len({a.get("code") for a in failed}) != 1:
        raise EngineLost(f"{method}: ranks disagree: {[a.get('message', 'ok') for a in answers]}; restart the server")
    raise answer_error(failed[0])


def _comparable(answer: RpcAnswer) -> RpcAnswer:
    """Without durations, which each rank measures, weights, which may be rounded otherwise, and comparisons, which one
    rank may have no memory for: nothing in the pools depends on them, and rank 0 decides."""
    return {name: value for name, value in answer.items() if name not in ("routing", "trace", "compared")}


def answer_error(answer: RpcAnswer) -> IncomesError:
    """The typed error behind a failed answer."""
    by_code: dict[str, type[IncomesError]] = {}
    for cls in _subclasses(IncomesError):
        by_code.setdefault(cls.code, cls)  # a class comes before what is derived from it (register.py)
    return by_code.get(answer["code"], EngineLost)(answer["message"], param=answer.get("param"))


def pack_delta(delta: SnapshotDelta[bytes], retire: Sequence[str]) -> RpcAnswer:
    """A commit as argument of an RPC; `retire` names snapshots nobody reads any more."""
    return {"delta": asdict(delta), "retire": list(retire)}


def unpack_delta(packed: RpcAnswer) -> tuple[SnapshotDelta[bytes], list[str]]:
    """The delta again, whatever msgpack made of its tuples, and what is to be retired."""
    return _DELTA.validate_python(packed["delta"]), packed["retire"]


def pack_captures(captures: Sequence[Captured]) -> RpcAnswer:
    """What became of captures."""
    return {"captures": [asdict(captured) for captured in captures]}


def unpack_captures(answer: RpcAnswer) -> list[Captured]:
    """The same in the order in which it was asked for."""
    return _CAPTURES.validate_python(answer["captures"])


def pack_compared(answers: Sequence[Compared | None]) -> RpcAnswer:
    """What new gists were compared with."""
    return {"compared": [None if answer is None else asdict(answer) for answer in answers]}


def unpack_compared(answer: RpcAnswer) -> list[Compared | None]:
    """The same again."""
    return _COMPARED.validate_python(answer["compared"])


def pack_trace(trace: RequestTrace | None) -> RpcAnswer:
    """What the answers to a request read; a message has no pairs as keys."""
    if trace is None:
        return {"trace": None}
    answers = [[choice, asdict(attribution)] for choice, attribution in trace.answers.items()]
    return {"trace": {"mean": asdict(trace.mean), "answers": answers}}


def unpack_trace(answer: RpcAnswer) -> RequestTrace | None:
    """The same again; None when nothing was traced."""
    found = answer["trace"]
    if found is None:
        return None
    return RequestTrace(_MEAN.validate_python(found["mean"]), dict(_ANSWERS.validate_python(found["answers"])))


def unpack_status(answer: RpcAnswer) -> WorkerStatus:
    """What a worker said of itself (`asdict`), whatever msgpack made of its tuples."""
    return _STATUS.validate_python(answer)


def _subclasses(cls: type[IncomesError]) -> Iterator[type[IncomesError]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)
