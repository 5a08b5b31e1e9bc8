"""A run that was stopped goes on as if it had not been: finished texts and running rows, in one file.

The file is replaced in one step, and names what it belongs to: model, settings and texts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.verbatim.frozen import FrozenModel
from incomes_plugin.lab.verbatim.optimise import Crammer, CramOutcome
from incomes_plugin.lab.verbatim.record import digest
from incomes_plugin.lab.verbatim.row import CramJob, CramRow, CramSettings

_NUMBERS = [field.name for field in fields(CramOutcome) if field.name not in ("target", "vectors")]
_HOW_MANY = ("most_rows", "most_positions")
"""Settings that change how texts share passes, not what becomes of one: a run may go on with other ones."""


class CramCheckpoint:
    """State of one run in the file `path`, written at most every `every_s` seconds."""

    def __init__(self, path: Path, every_s: float = 30.0) -> None:
        self.path, self.every_s = path, every_s
        self._written_s = time.monotonic()

    def restore(self, optimiser: Crammer) -> list[CramOutcome]:
        """Give the optimiser its running rows back, take finished texts out of its queue, and return those.

        Raises:
            InvalidValue: the file is damaged, or of another model, of other settings or texts.
        """
        if not self.path.is_file():
            return []
        try:
            with safe_open(self.path, "pt") as file:
                state = json.loads(file.metadata()["incomes"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise InvalidValue(f"{self.path} is damaged ({error}); run without --resume", param="resume") from error
        if state["run"] != _run(optimiser.model, optimiser.settings, optimiser.jobs):
            raise InvalidValue(
                f"{self.path} belongs to another model, other settings or other texts; run without --resume",
                param="resume",
            )
        jobs = {job.target.name: job for job in optimiser.jobs}
        outcomes = [
            CramOutcome(target=jobs[name].target, vectors=tensors[f"done.{index}"], **numbers)
            for index, (name, numbers) in enumerate(state["done"])
        ]
        for index, (name, numbers) in enumerate(state["rows"]):
            row, prefix = CramRow(jobs[name], optimiser.settings), f"row.{index}."
            row.restore({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}, numbers)
            optimiser.rows.append(row)
        known = {name for name, _ in (*state["done"], *state["rows"])}
        for job in [job for job in optimiser.waiting if job.target.name in known]:
            optimiser.waiting.remove(job)
        return outcomes

    def save(self, optimiser: Crammer, outcomes: Sequence[CramOutcome], *, now: bool = False) -> None:
        """Write the state if it is time."""
        if not now and time.monotonic() - self._written_s < self.every_s:
            return
        tensors: dict[str, torch.Tensor] = {f"done.{i}": outcome.vectors for i, outcome in enumerate(outcomes)}
        rows: list[tuple[str, dict[str, Any]]] = []
        for index, row in enumerate(optimiser.rows):
            own, numbers = row.state()
            tensors |= {f"row.{index}.{name}": tensor.contiguous() for name, tensor in own.items()}
            rows.append((row.job.target.name, numbers))
        done = [(o.target.name, {name: getattr(o, name) for name in _NUMBERS}) for o in outcomes]
        run = _run(optimiser.model, optimiser.settings, optimiser.jobs)
        unfinished = self.path.with_suffix(".part")
        save_file(tensors, unfinished, metadata={"incomes": json.dumps({"run": run, "done": done, "rows": rows})})
        unfinished.replace(self.path)
        self._written_s = time.monotonic()


def _run(model: FrozenModel, settings: CramSettings, jobs: Sequence[CramJob]) -> str:
    """What a state belongs to."""
    kept = {name: value for name, value in asdict(settings).items() if name not in _HOW_MANY}
    texts = [(job.target.name, job.target.ids, len(job.start), job.most_vectors) for job in jobs]
    return digest(json.dumps([asdict(model.origin), kept, texts]).encode())
