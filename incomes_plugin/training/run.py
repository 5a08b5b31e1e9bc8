"""What every recipe's run shares: devices, budget, resuming, checkpoints, a progress line, CSV curves and their plot.

A recipe is a subclass: it makes the module, yields the losses of a step, writes the model folder and judges it. One
CPU, one GPU or several are accelerate's business (`accelerate launch`); process 0 alone writes, reports and decides.
"""

from __future__ import annotations

import csv
import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from incomes_plugin.errors import InvalidValue
from incomes_plugin.evaluation.held_out import HeldOutScore
from incomes_plugin.selection.routing import CROWD
from incomes_plugin.training.plot import draw_curves
from incomes_plugin.training.schedule import Schedule

logger = logging.getLogger("incomes.training")

STATE_FILE, CURVES_FILE, PLOT_FILE = "state.pt", "curves.csv", "curves.png"
DEVICES = ("auto", "cpu", "cuda")
_RECORD_EVERY = 50
_DENSE_UNTIL = 500
"""Steps up to which the curves have a point every ten steps: short runs deserve curves too."""


@dataclass(frozen=True)
class RunOptions:
    """Where a run lives and how often it saves.

    Attributes:
        out: run folder (state, curves, model).
        data: shared data folder, or None for invented facts alone.
        checkpoint_s: seconds between checkpoints.
        evaluate_every: steps between held-out evaluations.
        grow_from: folder of an edit-capable model to start from (`growth.py`, `ReadingTrainer.take_over`); or None.
        device: `cpu`, `cuda`, or `auto`: cuda where there is one.
        base: folder of the checkpoint to start from, for the recipes that need one.
        edits, ask: size of the held-out evaluations: edits active at once, questions about them.
        crowd: edits of the smaller pool that a router's gate is calibrated on.
    """

    out: Path
    data: Path | None
    checkpoint_s: float = 180.0
    evaluate_every: int = 1000
    grow_from: Path | None = None
    device: str = "auto"
    base: Path | None = None
    edits: int = 100
    ask: int = 100
    crowd: int = CROWD


class StepLosses(Protocol):
    """Losses of one forward pass; `total` carries the gradient."""

    @property
    def total(self) -> torch.Tensor:
        """What is minimised."""

    def curves(self) -> dict[str, float]:
        """Columns of the curves."""

    def describe(self) -> str:
        """A few words for the progress line."""


def make_accelerator(device: str) -> Accelerator:
    """bfloat16 autocast on one device or on several processes.

    Raises:
        InvalidValue: no such device here.
    """
    if device not in DEVICES or (device == "cuda" and not torch.cuda.is_available()):
        raise InvalidValue(f"no device {device!r} here; choose one of {', '.join(DEVICES)}", param="device")
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(mixed_precision="bf16", cpu=device == "cpu", kwargs_handlers=[ddp])


class TrainingRun(ABC):
    """One run in a folder; construct and call `train()`; an existing state is resumed.

    Args:
        trainer: module whose forward pass makes the losses.
        trained: its parameters that the optimizer gets.
        schedule: budget and learning rate.
        accelerator: from `make_accelerator`.
    """

    def __init__(
        self,
        trainer: nn.Module,
        trained: Iterable[nn.Parameter],
        schedule: Schedule,
        options: RunOptions,
        accelerator: Accelerator,
        *,
        weight_decay: float,
    ) -> None:
        self.options = options
        self.schedule = schedule
        self.accelerator = accelerator
        self._trained = list(trained)
        optimizer = torch.optim.AdamW(
            self._trained, lr=schedule.learning_rate, betas=(0.9, 0.98), weight_decay=weight_decay
        )
        self.module, self.optimizer = accelerator.prepare(trainer, optimizer)
        self.step = 0
        self.elapsed_s = 0.0
        self.resumed = self._resume()

    @property
    def model_dir(self) -> Path:
        """The model folder of the run."""
        return self.options.out / "model"

    @abstractmethod
    def losses(self) -> Iterator[StepLosses]:
        """Forward passes of one step, one or several; the gradient of each is taken before the next is asked for."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write checkpoint, tokenizer and adapter as the engine loads them."""

    @abstractmethod
    def evaluate(self, *, edits: int, ask: int) -> HeldOutScore:
        """Held-out score of the exported model."""

    @abstractmethod
    def trained_state(self) -> dict[str, torch.Tensor]:
        """What a resumed run needs of the module."""

    @abstractmethod
    def load_trained_state(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what `trained_state` gave."""

    def train(self) -> HeldOutScore:
        """Run to the end of the budget, save the model, return the final held-out score."""
        saved_at = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, disable=not self._first) as progress:
            task = progress.add_task("train", total=1.0)
            while self.done < 1:
                losses = self._timed_step()
                progress.update(task, completed=self.done, description=f"step {self.step} {losses.describe()}")
                if self.step % (_RECORD_EVERY if self.step > _DENSE_UNTIL else 10) == 0:
                    self._record(losses)
                if time.monotonic() - saved_at > self.options.checkpoint_s:
                    self.save()
                    saved_at = time.monotonic()
                if self._first and self.step % self.options.evaluate_every == 0:
                    self._report(self.evaluate(edits=self.options.edits, ask=max(1, self.options.ask // 2)))
        self.save()
        return self.evaluate(edits=self.options.edits, ask=self.options.ask)

    @property
    def done(self) -> float:
        """Share of the budget that is spent."""
        return self.schedule.done(self.step, self.elapsed_s)

    @property
    def _first(self) -> bool:
        return bool(self.accelerator.is_main_process)

    def _timed_step(self) -> StepLosses:
        began = time.monotonic()
        losses = self._train_step()
        self.step += 1
        self.elapsed_s += time.monotonic() - began
        if self.accelerator.num_processes > 1:  # all must stop at the same step
            agreed = torch.tensor(self.elapsed_s, device=self.accelerator.device)
            self.elapsed_s = float(broadcast(agreed, from_process=0))
        return losses

    def _train_step(self) -> StepLosses:
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(self.step, self.elapsed_s)
        self.optimizer.zero_grad(set_to_none=True)
        for losses in self.losses():
            self.accelerator.backward(losses.total)
        self.accelerator.clip_grad_norm_(self._trained, 1.0)
        self.optimizer.step()
        self.stepped()
        return losses

    def stepped(self) -> None:  # noqa: B027  most runs have nothing to do
        """Called after every optimiser step."""

    # -- state ------------------------------------------------------------------------------------------------------

    def _resume(self) -> bool:
        path = self.options.out / STATE_FILE
        if not path.is_file():
            return False
        state = torch.load(path, weights_only=True, map_location="cpu")
        self.load_trained_state(state["trainer"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.elapsed_s = int(state["step"]), float(state["elapsed_s"])
        logger.warning("resumed %s at step %d", path, self.step)
        return True

    def save(self) -> None:
        """Write state (atomically), the model folder and the plot of the curves."""
        if not self._first:
            return
        path = self.options.out / STATE_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "trainer": self.trained_state(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
        }
        torch.save(state, path.with_suffix(".new"))
        os.replace(path.with_suffix(".new"), path)
        self.export(self.model_dir)
        draw_curves(self.options.out / CURVES_FILE, self.options.out / PLOT_FILE)

    # -- reports ----------------------------------------------------------------------------------------------------

    def _report(self, result: HeldOutScore) -> None:
        logger.warning(
            "step %d: held-out exact match %.1f %% at %d edits, unknown %.1f %%, %.0f bytes per edit; %s",
            self.step, 100 * result.success, result.edits, 100 * result.unknown, result.bytes_per_edit,
            result.examples[:3],
        )  # fmt: skip

    def _record(self, losses: StepLosses) -> None:
        if not self._first:
            return
        path = self.options.out / CURVES_FILE
        row = {"step": self.step, "time": round(time.time())}
        row |= {name: round(value, 4) for name, value in losses.curves().items()}  # type: ignore[misc]
        new = not path.is_file()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
