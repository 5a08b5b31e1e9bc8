"""Whether the server may answer, and why not: one named check per start-up stage, read by /readyz and the chat gate."""

from __future__ import annotations

from collections.abc import Callable

from incomes_plugin.errors import EngineLost, IncomesError, NotReady

STAGES = ("store", "engine", "handshake", "canary", "replica")


class Readiness:
    """Each stage is open with a reason until it passes; a watched part that dies afterwards closes it again."""

    def __init__(self) -> None:
        self._reasons: dict[str, str | None] = dict.fromkeys(STAGES, "not started")
        self._watches: dict[str, Callable[[], str | None]] = {}

    def passed(self, stage: str) -> None:
        """The stage is done."""
        self._reasons[stage] = None

    def failed(self, stage: str, reason: str) -> None:
        """The stage is not (or no longer) good."""
        self._reasons[stage] = reason

    def watch(self, stage: str, probe: Callable[[], str | None]) -> None:
        """Ask `probe` on every look; it returns a reason when the part is lost."""
        self._watches[stage] = probe

    def reasons(self) -> dict[str, str | None]:
        """Reason per stage; None = good."""
        lost = {stage: probe() for stage, probe in self._watches.items()}
        return {stage: reason or lost.get(stage) for stage, reason in self._reasons.items()}

    @property
    def lost(self) -> bool:
        """True when a watched part died after it had been good: only a restart helps."""
        return any(self._reasons[stage] is None and probe() for stage, probe in self._watches.items())

    @property
    def ready(self) -> bool:
        """True when every stage is good."""
        return not any(self.reasons().values())

    def require(self) -> None:
        """Refuse to answer.

        Raises:
            EngineLost: the engine died after the start.
            NotReady: a stage has not passed.
        """
        for stage, reason in self.reasons().items():
            if reason is not None:
                raise self._error(stage, reason)

    def _error(self, stage: str, reason: str) -> IncomesError:
        engine_was_up = stage == "engine" and self._reasons[stage] is None
        kind = EngineLost if engine_was_up else NotReady
        return kind(f"the server cannot answer with edits now: {stage}: {reason}")
