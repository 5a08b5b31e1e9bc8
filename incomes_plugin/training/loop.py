"""The default model's run: tokenizer and model from scratch, by `Recipe`. Called by `incomes train`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from incomes_plugin.evaluation.held_out import HeldOutScore, score
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel
from incomes_plugin.training.average import WeightAverage
from incomes_plugin.training.calibration import calibrate
from incomes_plugin.training.data import corpus
from incomes_plugin.training.data.batches import BatchSource
from incomes_plugin.training.data.facts import FactSource
from incomes_plugin.training.data.tokenizer import save_tokenizer, train_tokenizer
from incomes_plugin.training.growth import grow
from incomes_plugin.training.losses import EditTrainer, Losses
from incomes_plugin.training.recipe import Recipe
from incomes_plugin.training.run import RunOptions, TrainingRun, make_accelerator

__all__ = ["Recipe", "Run", "RunOptions"]

_TOKENIZER_FACTS = 60_000


class Run(TrainingRun):
    """One training run in a folder; construct and call `train()`; an existing state is resumed."""

    def __init__(self, recipe: Recipe, options: RunOptions) -> None:
        self.recipe = recipe
        options.out.mkdir(parents=True, exist_ok=True)
        accelerator = make_accelerator(options.device)
        self._texts = corpus.texts(options.data, limit=20_000)
        self._records = corpus.edits(options.data, limit=25_000)
        with accelerator.main_process_first():
            self.tokenizer = self._tokenizer(options)
        self.trainer = EditTrainer(recipe.model(self.tokenizer), recipe.adapter(self.tokenizer))
        super().__init__(
            self.trainer, self.trainer.parameters(), recipe.schedule, options, accelerator,
            weight_decay=recipe.weight_decay,
        )  # fmt: skip
        if not self.resumed and options.grow_from is not None:
            grow(self.trainer, options.grow_from)
        self._average = WeightAverage(self.trainer)
        self._source = BatchSource(
            self.tokenizer, self.trainer.adapter, self._records, self._texts, recipe.mix,
            edits_per_batch=recipe.edits_per_batch, max_row_tokens=recipe.max_row_tokens,
            seed=(recipe.seed + 1000 * accelerator.process_index) * 1_000_000 + self.step,
        )  # fmt: skip

    def _tokenizer(self, options: RunOptions) -> PreTrainedTokenizerFast:
        folder = options.out / "model"
        if options.grow_from is not None:
            return PreTrainedTokenizerFast.from_pretrained(options.grow_from)
        if (folder / "tokenizer.json").is_file():
            return PreTrainedTokenizerFast.from_pretrained(folder)
        facts = FactSource(self.recipe.seed, held_out=False).distinct(_TOKENIZER_FACTS)
        lines = [s for f in facts for s in (f.statement, f.question, f.answer)]
        lines += self._texts[:20_000] + [r.statement for r in self._records[:20_000]]
        tokenizer = train_tokenizer(lines, vocab_size=self.recipe.vocab_size, max_gists=self.recipe.max_gists)
        save_tokenizer(tokenizer, folder)
        return tokenizer

    def losses(self) -> Iterator[Losses]:
        """One batch a step."""
        batch = self._source.next(easy=self.done < self.recipe.easy_share)
        yield self.module(batch.to(self.accelerator.device), self.recipe.forced(self.done))

    def stepped(self) -> None:
        """The slow encoder and the average follow."""
        self.trainer.follow()
        self._average.update()

    def trained_state(self) -> dict[str, torch.Tensor]:
        """All parameters."""
        return self.trainer.state_dict()

    def load_trained_state(self, state: dict[str, torch.Tensor]) -> None:
        """All parameters."""
        self.trainer.load_state_dict(state)

    def export(self, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
        """Write checkpoint, tokenizer and adapter, with averaged weights, as the engine loads them."""
        with self._average.applied():
            self._export(folder, dtype)

    def _export(self, folder: Path, dtype: torch.dtype) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        state = self.trainer.model.state_dict().items()
        tensors = {name: t.to("cpu", dtype) for name, t in state if name != "lm_head.weight"}  # tied to the embeddings
        self.trainer.model.config.dtype = dtype
        self.trainer.model.save_pretrained(folder, state_dict=tensors)
        save_tokenizer(self.tokenizer, folder)
        self.adapter().save(folder)

    def adapter(self) -> EditAdapter:
        """The adapter with its trained tensors."""
        selection = self.trainer.selection
        return replace(
            self.trainer.adapter,
            zero_keys=selection.zero_keys.detach().clone(),
            query_map=selection.query_map.detach().clone(),
            value_map=selection.value_map.detach().clone(),
            router=selection.router().detached(),
        )

    def evaluate(self, *, edits: int, ask: int) -> HeldOutScore:
        """Held-out score of the exported model, as the engine would load it."""
        if self.accelerator.is_main_process:
            self.export(self.model_dir)
            if self.done >= 1:
                calibrate(self.model_dir, self.tokenizer, self._records, crowd=self.options.crowd)
        self.accelerator.wait_for_everyone()
        editable = EditableModel.load(self.model_dir, torch.float32)
        return score(editable, self.tokenizer, edits=edits, ask=ask, seed=7)
