"""The training loop: resumable, one progress line, CSV curves. Called by `incomes train`."""

from __future__ import annotations

import csv
import logging
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import PreTrainedTokenizerFast

from incomes_plugin.evaluation.held_out import HeldOutScore, score
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel
from incomes_plugin.training.data import corpus
from incomes_plugin.training.data.batches import BatchSource
from incomes_plugin.training.data.facts import FactSource
from incomes_plugin.training.data.tokenizer import save_tokenizer, train_tokenizer
from incomes_plugin.training.growth import grow
from incomes_plugin.training.losses import EditTrainer, Losses
from incomes_plugin.training.recipe import Recipe

logger = logging.getLogger("incomes.training")

_STATE = "state.pt"
_CURVES = "curves.csv"
_TOKENIZER_FACTS = 60_000


@dataclass(frozen=True)
class RunOptions:
    """Where a run lives and how often it saves.

    Attributes:
        out: run folder (state, curves, model).
        data: shared data folder, or None for invented facts alone.
        checkpoint_s: seconds between checkpoints.
        evaluate_every: steps between held-out evaluations.
        grow_from: folder of an edit-capable model to start from, see `growth.py`; None starts from scratch.
    """

    out: Path
    data: Path | None
    checkpoint_s: float = 180.0
    evaluate_every: int = 1000
    grow_from: Path | None = None


class Run:
    """One training run in a folder; construct and call `train()`; an existing state is resumed."""

    def __init__(self, recipe: Recipe, options: RunOptions) -> None:
        self.recipe = recipe
        self.options = options
        options.out.mkdir(parents=True, exist_ok=True)
        self._texts = corpus.texts(options.data, limit=20_000)
        self._records = corpus.edits(options.data, limit=25_000)
        self.tokenizer = self._tokenizer()
        self.trainer = EditTrainer(recipe.model(self.tokenizer), recipe.adapter(self.tokenizer))
        self.optimizer = torch.optim.AdamW(
            self.trainer.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
        )
        self.step = 0
        self.elapsed_s = 0.0
        if not self._resume() and options.grow_from is not None:
            grow(self.trainer, options.grow_from)

    def _tokenizer(self) -> PreTrainedTokenizerFast:
        folder = self.options.out / "model"
        if self.options.grow_from is not None:
            return PreTrainedTokenizerFast.from_pretrained(self.options.grow_from)
        if (folder / "tokenizer.json").is_file():
            return PreTrainedTokenizerFast.from_pretrained(folder)
        facts = FactSource(self.recipe.seed, held_out=False).distinct(_TOKENIZER_FACTS)
        lines = [s for f in facts for s in (f.statement, f.question, f.answer)]
        lines += self._texts[:20_000] + [r.statement for r in self._records[:20_000]]
        tokenizer = train_tokenizer(lines, vocab_size=self.recipe.vocab_size, max_gists=self.recipe.max_gists)
        save_tokenizer(tokenizer, folder)
        return tokenizer

    def train(self) -> HeldOutScore:
        """Run to the end of the time budget, save the model, return the final held-out score at 100 edits."""
        source = BatchSource(
            self.tokenizer, self.trainer.adapter, self._records, self._texts, self.recipe.mix,
            edits_per_batch=self.recipe.edits_per_batch, max_row_tokens=self.recipe.max_row_tokens,
            seed=self.recipe.seed * 1_000_000 + self.step,
        )  # fmt: skip
        saved_at = time.monotonic()
        budget_s = 60 * self.recipe.minutes
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns) as progress:
            task = progress.add_task("train", total=budget_s, completed=int(self.elapsed_s))
            while self.elapsed_s < budget_s:
                began = time.monotonic()
                losses = self._train_step(source)
                self.step += 1
                self.elapsed_s += time.monotonic() - began
                progress.update(task, completed=self.elapsed_s, description=f"step {self.step} {_describe(losses)}")
                if self.step % 50 == 0:
                    self._record(losses)
                if time.monotonic() - saved_at > self.options.checkpoint_s:
                    self.save()
                    saved_at = time.monotonic()
                if self.step % self.options.evaluate_every == 0:
                    self._report(self.evaluate(edits=100, ask=50))
        self.save()
        return self.evaluate(edits=100, ask=100)

    def _train_step(self, source: BatchSource) -> Losses:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.step, self.elapsed_s)
        easy = self.elapsed_s < 60 * self.recipe.minutes * self.recipe.easy_share
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses: Losses = self.trainer(source.next(easy=easy), self.recipe.forced(self.elapsed_s))
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(self.trainer.parameters(), 1.0)
        self.optimizer.step()
        return losses

    # -- state ------------------------------------------------------------------------------------------------------

    def _resume(self) -> bool:
        path = self.options.out / _STATE
        if not path.is_file():
            return False
        state = torch.load(path, weights_only=True)
        self.trainer.load_state_dict(state["trainer"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.elapsed_s = int(state["step"]), float(state["elapsed_s"])
        logger.warning("resumed %s at step %d", path, self.step)
        return True

    def save(self) -> None:
        """Write state (atomically) and the model folder."""
        path = self.options.out / _STATE
        state = {
            "trainer": self.trainer.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
        }
        torch.save(state, path.with_suffix(".new"))
        os.replace(path.with_suffix(".new"), path)
        self.export(self.options.out / "model")

    def export(self, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
        """Write checkpoint, tokenizer and adapter as the engine loads them."""
        folder.mkdir(parents=True, exist_ok=True)
        state = self.trainer.model.state_dict().items()
        tensors = {name: t.to(dtype) for name, t in state if name != "lm_head.weight"}  # tied to the embeddings
        self.trainer.model.config.dtype = dtype
        self.trainer.model.save_pretrained(folder, state_dict=tensors)
        save_tokenizer(self.tokenizer, folder)
        self.adapter().save(folder)

    def adapter(self) -> EditAdapter:
        """The adapter with its trained tensors."""
        selection = self.trainer.selection
        return replace(
            self.trainer.adapter,
            zero_keys=selection.zero_keys.detach(),
            query_map=selection.query_map.detach(),
            value_map=selection.value_map.detach(),
            router=selection.router().detached(),
        )

    # -- reports ----------------------------------------------------------------------------------------------------

    def evaluate(self, *, edits: int, ask: int) -> HeldOutScore:
        """Held-out score of the exported model, as the engine would load it."""
        self.export(self.options.out / "model")
        editable = EditableModel.load(self.options.out / "model", torch.float32)
        return score(editable, self.tokenizer, edits=edits, ask=ask, seed=7)

    def _report(self, result: HeldOutScore) -> None:
        logger.warning(
            "step %d: held-out exact match %.1f %% at %d edits, unknown %.1f %%, %.0f bytes per edit; %s",
            self.step, 100 * result.success, result.edits, 100 * result.unknown, result.bytes_per_edit,
            result.examples[:3],
        )  # fmt: skip

    def _record(self, losses: Losses) -> None:
        path = self.options.out / _CURVES
        values = {k: v for k, v in asdict(replace(losses, total=0.0)).items() if k != "total"}  # type: ignore[arg-type]
        row = {"step": self.step, "time": round(time.time()), **{k: round(v, 4) for k, v in values.items()}}
        new = not path.is_file()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)


def _describe(losses: Losses) -> str:
    return (
        f"loss {losses.answer:.2f} route {100 * losses.route_accuracy:.0f}% point {100 * losses.pointer_accuracy:.0f}% "
        f"answer {100 * losses.answer_accuracy:.0f}% rebuild {losses.reconstruction:.2f}"
    )
