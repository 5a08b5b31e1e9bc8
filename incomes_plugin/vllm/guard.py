"""Second line of defence, in the engine core: a request whose pinned snapshot is not in the pool fails, and no other.

The server pins only snapshots that it has committed, so this never happens while server and engine agree. The guard
sees commits and retirements pass through `EngineCore.collective_rpc` and checks each request on its way in; vLLM then
answers that request with an error. Without the guard a worker would meet the unknown snapshot and fail the whole step.
"""

from __future__ import annotations

from typing import Any

from incomes_plugin.errors import SelectionFailed
from incomes_plugin.vllm.rows import RequestTag
from incomes_plugin.vllm.wire import unpack_delta

RESIDENT_ATTRIBUTE = "incomes_resident"


def check_request(core: Any, request: Any) -> None:
    """Raise SelectionFailed when `request` is pinned to a snapshot the workers lack."""
    params = request.sampling_params
    tag = RequestTag.parse(params.extra_args if params is not None else None)
    if tag is not None and tag.snapshot is not None and tag.snapshot not in _resident(core):
        raise SelectionFailed(f"snapshot {tag.snapshot} is not in the engine's pool")


def observe_rpc(core: Any, method: Any, args: tuple[Any, ...], answers: list[Any]) -> None:
    """Follow the set of resident snapshots; called with the answers of every collective RPC."""
    resident = _resident(core)
    if method == "incomes_commit":
        delta, retire = unpack_delta(args[0])
        resident.difference_update(retire)
        if all(answer.get("ok") for answer in answers):
            resident.add(delta.snapshot.id)
    elif method == "incomes_retire":
        resident.difference_update(args[0])


def _resident(core: Any) -> set[str]:
    resident: set[str] = core.__dict__.setdefault(RESIDENT_ATTRIBUTE, set())
    return resident
