"""Whether the server may answer, and why not: one named check per start-up stage, read by /readyz and the chat gate."""

from __future__ import annotations

import time
from collections.abc import Callable

from incomes_plugin.errors import EngineLost, IncomesError, NotReady

STAGES = ("store", "engine", "handshake", "canary", "replica")
CHECKS = ("processes", "engine_answers", "store_answers", "scheduler_answers")
"""Kept up to date while the server runs; `changes` is one more, see `refused`."""


class Readiness:
    """Each stage is open with a reason until it passes; a watched part that dies afterwards closes it again."""

    def __init__(self) -> None:
        self._reasons: dict[str, str | None] = dict.fromkeys(STAGES, "not started")
        self._notes: dict[str, str | None] = dict.fromkeys(CHECKS)
        self._refused: dict[str, str] = {}
        self._watches: dict[str, Callable[[], str | None]] = {}
        self._leased_until_s: float | None = None

    def passed(self, stage: str) -> None:
        """The stage is done."""
        self._reasons[stage] = None

    def failed(self, stage: str, reason: str) -> None:
        """The stage has not passed, or it does not hold any more."""
        self._reasons[stage] = reason

    def note(self, check: str, reason: str | None) -> None:
        """Note the result of a check of a running part; None = it is well."""
        self._notes[check] = reason

    def refused(self, edit_set: str, reason: str | None) -> None:
        """The engine could not apply a change of the edit set; None = now it has. The set is not served meanwhile."""
        if reason is None:
            self._refused.pop(edit_set, None)
        else:
            self._refused[edit_set] = reason

    def leased(self, until_s: float) -> None:
        """From that time on, by the monotonic clock, writes may be active without this server: it must not answer."""
        self._leased_until_s = until_s

    def watch(self, stage: str, probe: Callable[[], str | None]) -> None:
        """Ask `probe` on every look; it returns a reason when the part is lost."""
        self._watches[stage] = probe

    def reasons(self) -> dict[str, str | None]:
        """Reason per stage; None = good."""
        lost = {stage: probe() for stage, probe in self._watches.items()}
        if self._leased_until_s is not None and time.monotonic() >= self._leased_until_s:
            lost["replica"] = "the edit store has not been heard of for so long that it waits for this server no more"
        changes = f"{len(self._refused)} edit sets have a change that the engine refuses" if self._refused else None
        stages = {stage: reason or lost.get(stage) for stage, reason in self._reasons.items()}
        return {**stages, **self._notes, "changes": changes}

    @property
    def num_refused(self) -> int:
        """Edit sets with a change that the engine refuses."""
        return len(self._refused)

    @property
    def lost(self) -> bool:
        """True when a watched part died after it had been good: only a restart helps."""
        return any(self._reasons[stage] is None and probe() for stage, probe in self._watches.items())

    @property
    def ready(self) -> bool:
        """True when every stage is good."""
        return not any(self.reasons().values())

    def require(self) -> None:
        """Refuse to generate.

        Raises:
            EngineLost: the engine died after the start.
            NotReady: a stage has not passed, or a part that answers depend on does not work.
        """
        for stage, reason in self.reasons().items():
            if reason is not None and stage not in ("scheduler_answers", "changes"):
                raise self._error(stage, reason)

    def require_set(self, edit_set: str) -> None:
        """Refuse to generate from a state that the caller has been told is gone.

        Raises:
            NotReady: the engine could not apply the newest change of the edit set.
        """
        if edit_set in self._refused:
            raise NotReady(f"the engine cannot apply a change of this edit set yet: {self._refused[edit_set]}")

    def _error(self, stage: str, reason: str) -> IncomesError:
        engine_was_up = stage == "engine" and self._reasons[stage] is None
        kind = EngineLost if engine_was_up else NotReady
        return kind(f"the server cannot answer with edits now: {stage}: {reason}")
