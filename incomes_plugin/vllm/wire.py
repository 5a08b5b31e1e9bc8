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
from incomes_plugin.pool.snapshot import SnapshotDelta

RpcAnswer = dict[str, Any]
_DELTA = TypeAdapter(SnapshotDelta[bytes])
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
        return answers[0]
    if len(failed) != len(answers) or len({a.get("code") for a in failed}) != 1:
        raise EngineLost(f"{method}: ranks disagree: {[a.get('message', 'ok') for a in answers]}; restart the server")
    raise answer_error(failed[0])


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


def _subclasses(cls: type[IncomesError]) -> Iterator[type[IncomesError]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)
