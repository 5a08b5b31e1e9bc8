"""A run that puts new layers on an edit-capable model so that it reads its prompt: `incomes train --tune reading`."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from incomes_plugin.errors import InvalidValue
from incomes_plugin.evaluation.held_out import HeldOutScore, score
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel
from incomes_plugin.training.average import WeightAverage
from incomes_plugin.training.data import corpus
from incomes_plugin.training.data.batches import BatchSource
from incomes_plugin.training.data.tokenizer import save_tokenizer
from incomes_plugin.training.reading.losses import ReadingLosses, ReadingTrainer
from incomes_plugin.training.reading.recipe import ReadingRecipe
from incomes_plugin.training.run import RunOptions, TrainingRun, make_accelerator


class ReadingRun(TrainingRun):
    """One run in a folder; `options.base` is an edit-capable model and is never written to.

    Raises:
        InvalidValue: no base.
        GistFormatError: the base is not edit-capable.
    """

    def __init__(self, recipe: ReadingRecipe, options: RunOptions) -> None:
        if options.base is None:
            raise InvalidValue("give the folder of an edit-capable model with --base", param="base")
        self.recipe = recipe
        self._adapter = EditAdapter.load(options.base)
        options.out.mkdir(parents=True, exist_ok=True)
        accelerator = make_accelerator(options.device)
        torch.manual_seed(recipe.seed)
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(options.base)
        model = AutoModelForCausalLM.from_pretrained(options.base, dtype=torch.float32)
        tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set[str]()
        self._base = {name: tensor.clone() for name, tensor in model.state_dict().items() if name not in tied}
        self._config, self._generation = deepcopy(model.config), model.generation_config
        self.trainer = ReadingTrainer(EditableModel(model, self._adapter), recipe.num_layers, recipe.crowd)
        super().__init__(
            self.trainer, self.trainer.parameters(), recipe.schedule, options, accelerator,
            weight_decay=recipe.weight_decay,
        )  # fmt: skip
        if not self.resumed and options.grow_from is not None:
            self.trainer.take_over(EditableModel.load(options.grow_from))
        self._average = WeightAverage(self.trainer)
        self._source = BatchSource(
            self.tokenizer, self._adapter, corpus.edits(options.data, limit=25_000),
            corpus.texts(options.data, limit=20_000), recipe.mix,
            edits_per_batch=recipe.edits_per_batch, max_row_tokens=recipe.max_row_tokens,
            seed=(recipe.seed + 1000 * accelerator.process_index) * 1_000_000 + self.step,
        )  # fmt: skip

    def losses(self) -> Iterator[ReadingLosses]:
        """A batch with facts in its prompts, and every few steps one with edits."""
        if self.step % self.recipe.edits_every == 0:
            yield self.module(self._source.next(whole=True).to(self.accelerator.device))
        yield self.module(self._source.reading().to(self.accelerator.device))

    def stepped(self) -> None:
        """The average follows."""
        self._average.update()

    def trained_state(self) -> dict[str, torch.Tensor]:
        """The new layers."""
        return self.trainer.state_dict()

    def load_trained_state(self, state: dict[str, torch.Tensor]) -> None:
        """The new layers."""
        self.trainer.load_state_dict(state)

    def export(self, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
        """Write the base with its new layers, averaged, and its adapter as it is."""
        below = self._config.num_hidden_layers
        tensors = dict(self._base)
        with self._average.applied():
            for name, tensor in self.trainer.top.state_dict().items():
                kind, _, rest = name.partition(".")
                place, _, part = rest.partition(".")
                at = f"model.layers.{below + int(place)}.{part}" if kind == "layers" else f"model.{name}"
                tensors[at] = tensor.detach().clone()
        config = deepcopy(self._config)
        config.num_hidden_layers, config.dtype = below + self.recipe.num_layers, dtype
        model = AutoModelForCausalLM.from_config(config)
        model.generation_config = self._generation
        model.save_pretrained(folder, state_dict={name: t.to("cpu", dtype) for name, t in tensors.items()})
        save_tokenizer(self.tokenizer, folder)
        self._adapter.save(folder)

    def evaluate(self, *, edits: int, ask: int) -> HeldOutScore:
        """Held-out score of the exported model, as the engine would load it."""
        if self.accelerator.is_main_process:
            self.export(self.model_dir)
        self.accelerator.wait_for_everyone()
        return score(EditableModel.load(self.model_dir), self.tokenizer, edits=edits, ask=ask, seed=7)
