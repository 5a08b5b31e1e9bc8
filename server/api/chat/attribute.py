"""The attribution of an answer as the `edits` object of the API: for each choice, and the mean over all choices."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from incomes_server.api.chat.resolve import Resolved

if TYPE_CHECKING:
    from incomes_plugin.vllm.engine import EditEngine

_running: set[asyncio.Task[None]] = set()


class Attributor:
    """Fetches the attribution of one request once; an async context that lets go of what was not fetched.

    Args:
        answers: to each prompt, `n` of the request.
    """

    def __init__(self, engine: EditEngine, resolved: Resolved, answers: int) -> None:
        self._engine = engine
        self._resolved = resolved
        self._answers = answers
        # Without edits the request takes the stock path, where nothing is traced.
        self._is_due = resolved.snapshot.num_edits > 0

    async def __aenter__(self) -> None:
        """Nothing to do at the start."""

    async def __aexit__(self, *_: object) -> None:
        """Drop the engine's trace, however the request ended."""
        if self._is_due:
            task = asyncio.create_task(self._engine.drop_trace(self._resolved.trace or ""))
            _running.add(task)
            task.add_done_callback(_running.discard)

    async def __call__(self, choices: Sequence[int]) -> dict[str, Any]:
        """The `edits` object of an answer with these choices. Raises SelectionFailed, EngineLost."""
        found = {}
        if self._is_due:
            found = await self._engine.attributions(self._resolved.trace or "")
            self._is_due = False
        rendered = []
        for index in choices or [0]:
            attribution = found.get(divmod(index, self._answers))
            applied = [] if attribution is None else attribution.applied
            rendered.append(
                {
                    "index": index,
                    "applied": [{"edit": edit, "version": v, "weight": round(w, 6)} for edit, v, w in applied],
                    "none_weight": 1.0 if attribution is None else round(attribution.none_weight, 6),
                }
            )
        snapshot = self._resolved.snapshot
        place = {"edit_set": snapshot.edit_set, "snapshot": snapshot.id, "reason": self._resolved.reason}
        if self._resolved.label is not None:
            place["label"] = self._resolved.label
        return {**place, **_mean(rendered), "choices": rendered}


def _mean(choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Over all choices; of one choice, the same numbers."""
    total: dict[tuple[str, int], float] = {}
    for choice in choices:
        for applied in choice["applied"]:
            key = (applied["edit"], applied["version"])
            total[key] = total.get(key, 0.0) + applied["weight"] / len(choices)
    applied = [
        {"edit": edit, "version": version, "weight": round(weight, 6)}
        for (edit, version), weight in sorted(total.items(), key=lambda item: -item[1])
    ]
    return {
        "applied": applied,
        "none_weight": round(sum(choice["none_weight"] for choice in choices) / len(choices), 6),
    }
