"""A run of the paper's recipe from a base checkpoint, all weights trained: `incomes train --tune full`."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from incomes_plugin.errors import InvalidValue
from incomes_plugin.evaluation.held_out import HeldOutScore, score
from incomes_plugin.gist.types import GistShape
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel
from incomes_plugin.selection.scale import FixedTemperature
from incomes_plugin.training.data import corpus
from incomes_plugin.training.data.vocabulary import Vocabulary
from incomes_plugin.training.paper.batches import ChunkSource
from incomes_plugin.training.paper.losses import PaperLosses, PaperTrainer
from incomes_plugin.training.paper.recipe import PaperRecipe
from incomes_plugin.training.run import RunOptions, TrainingRun, make_accelerator
from incomes_plugin.training.spare import spare_ids


class PaperRun(TrainingRun):
    """One run in a folder; `options.base` is what it starts from, and its frozen copy is the teacher.

    Raises:
        InvalidValue: no base.
    """

    def __init__(self, recipe: PaperRecipe, options: RunOptions) -> None:
        if options.base is None:
            raise InvalidValue("the paper's recipe starts from a checkpoint: give its folder with --base", param="base")
        options.out.mkdir(parents=True, exist_ok=True)
        self.recipe = recipe
        accelerator = make_accelerator(options.device)
        torch.manual_seed(recipe.seed)
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(options.base)
        words = Vocabulary(self.tokenizer)
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(options.base, dtype=torch.float32)
        gist_id = _add_gist_token(model, self.tokenizer)
        adapter = paper_adapter(model, self.tokenizer, words, gist_id, recipe.max_edit_tokens)
        self.trainer = PaperTrainer(model, copy.deepcopy(model), adapter, recipe.beta)
        super().__init__(
            self.trainer, self.trainer.parameters(), recipe.schedule, options, accelerator,
            weight_decay=recipe.weight_decay,
        )  # fmt: skip
        self._source = ChunkSource(
            words, adapter, corpus.edits(options.data, limit=25_000), recipe,
            seed=(recipe.seed + 1000 * accelerator.process_index) * 1_000_000 + self.step,
        )  # fmt: skip

    def losses(self) -> Iterator[PaperLosses]:
        """The chunks of one update, the loss of each by its share of the samples."""
        for chunk in self._source.update():
            losses: PaperLosses = self.module(chunk.to(self.accelerator.device))
            yield replace(losses, total=losses.total * (len(chunk.plain) / self.recipe.samples))

    def trained_state(self) -> dict[str, torch.Tensor]:
        """All weights and the zero-gist keys."""
        return self.trainer.state_dict()

    def load_trained_state(self, state: dict[str, torch.Tensor]) -> None:
        """All weights and the zero-gist keys."""
        self.trainer.load_state_dict(state)

    def export(self, folder: Path) -> None:
        """Write checkpoint, tokenizer and adapter."""
        model = self.trainer.model
        tied = model.config.tie_word_embeddings
        tensors = {
            name: t.to("cpu", torch.bfloat16)
            for name, t in model.state_dict().items()
            if not (tied and name == "lm_head.weight")
        }
        model.config.dtype = torch.bfloat16
        model.save_pretrained(folder, state_dict=tensors)
        self.tokenizer.save_pretrained(folder)
        replace(self.trainer.adapter, zero_keys=self.trainer.zero_keys.detach()).save(folder)

    def evaluate(self, *, edits: int, ask: int) -> HeldOutScore:
        """Held-out score of the exported model."""
        if self.accelerator.is_main_process:
            self.export(self.model_dir)
        self.accelerator.wait_for_everyone()
        return score(EditableModel.load(self.model_dir), self.tokenizer, edits=edits, ask=ask, seed=7)


def paper_adapter(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, words: Vocabulary, gist_id: int, max_edit_tokens: int
) -> EditAdapter:
    """The paper's adapter: one gist per edit, upper half of the layers, rotary queries, temperature 0.45; no maps."""
    config = model.config
    layers = tuple(range(config.num_hidden_layers // 2, config.num_hidden_layers))
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    begins_with_bos = words.begin[:1] == [tokenizer.bos_token_id]
    return EditAdapter(
        shape=GistShape(layers, 1, config.num_key_value_heads, head_dim),
        gist_token_ids=(gist_id,),
        bos_token_id=words.begin[0] if begins_with_bos else None,
        max_edit_tokens=max_edit_tokens,
        scale=FixedTemperature(),
        zero_keys=torch.zeros(len(layers), config.num_key_value_heads, head_dim),
        rotary_query=True,
    )


@torch.no_grad()
def _add_gist_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Give the gist token a spare id, or a new row; it starts as the mean of all embeddings, as in the paper."""
    rows = _embedding(model).shape[0]
    spare = spare_ids(tokenizer, rows)
    if not spare:
        model.resize_token_embeddings(rows + 1, mean_resizing=False)
    gist_id = spare[0] if spare else rows
    head: torch.Tensor = model.get_output_embeddings().weight  # type: ignore[union-attr, assignment]
    for weight in (_embedding(model), head):
        weight[gist_id] = weight[:rows].mean(dim=0)
    return gist_id


def _embedding(model: PreTrainedModel) -> torch.Tensor:
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, torch.Tensor)
    return weight
