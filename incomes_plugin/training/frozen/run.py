"""A run that makes somebody's checkpoint edit-capable without changing it: `incomes train --tune adapter`."""

from __future__ import annotations

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
from incomes_plugin.selection.routing import Router
from incomes_plugin.selection.scale import LogScale
from incomes_plugin.training.data import corpus
from incomes_plugin.training.data.batches import BatchSource
from incomes_plugin.training.data.facts import FactSource
from incomes_plugin.training.data.vocabulary import Vocabulary
from incomes_plugin.training.frozen.checkpoint import plan_rows, write_copy
from incomes_plugin.training.frozen.losses import FrozenTrainer
from incomes_plugin.training.frozen.recipe import FrozenRecipe
from incomes_plugin.training.losses import Losses
from incomes_plugin.training.run import RunOptions, TrainingRun, make_accelerator

FAMILIES = ("llama", "qwen2", "qwen3", "mistral")
_SAMPLES = 32


class FrozenRun(TrainingRun):
    """One run in a folder; `options.base` is never written to.

    Raises:
        InvalidValue: no base, or one of another family.
    """

    def __init__(self, recipe: FrozenRecipe, options: RunOptions) -> None:
        if options.base is None:
            raise InvalidValue("an edit adapter needs a checkpoint: give its folder with --base", param="base")
        options.out.mkdir(parents=True, exist_ok=True)
        self.recipe = recipe
        self._base_dir = options.base
        accelerator = make_accelerator(options.device)
        torch.manual_seed(recipe.seed)
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(options.base)
        self._has_template = self.tokenizer.chat_template is not None
        words = Vocabulary(self.tokenizer)
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(options.base, dtype="auto")
        if model.config.model_type not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise InvalidValue(f"{options.base} is a {model.config.model_type}; adapters are for {known}", param="base")
        model.to(accelerator.device)  # type: ignore[arg-type]
        self.rows = plan_rows(model, self.tokenizer, _samples(words), recipe.max_gists)
        self.trainer = FrozenTrainer(model, self._adapter(model, words), recipe.rebuild)
        super().__init__(
            self.trainer, self.trainer.trained(), recipe.schedule, options, accelerator,
            weight_decay=recipe.weight_decay,
        )  # fmt: skip
        self._source = BatchSource(
            self.tokenizer, self.trainer.adapter, corpus.edits(options.data, limit=25_000),
            corpus.texts(options.data, limit=2_000), recipe.mix,
            edits_per_batch=recipe.edits_per_batch, max_row_tokens=recipe.max_row_tokens,
            seed=(recipe.seed + 1000 * accelerator.process_index) * 1_000_000 + self.step,
        )  # fmt: skip

    def _adapter(self, model: PreTrainedModel, words: Vocabulary) -> EditAdapter:
        """The adapter with placeholders for what is trained; BOS as the base's chat template has it."""
        config, rows = model.config, self.rows
        count = self.recipe.gist_layers or config.num_hidden_layers - config.num_hidden_layers // 2
        layers = tuple(range(config.num_hidden_layers - count, config.num_hidden_layers))
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        begins_with_bos = words.begin[:1] == [self.tokenizer.bos_token_id]
        none = torch.empty(0)
        return EditAdapter(
            shape=GistShape(layers, len(rows.ids), config.num_key_value_heads, head_dim),
            gist_token_ids=rows.ids,
            bos_token_id=words.begin[0] if begins_with_bos else None,
            max_edit_tokens=len(rows.ids),
            scale=LogScale(base=self.recipe.read_scale, slope=0.0),
            zero_keys=torch.zeros(len(layers), config.num_key_value_heads, head_dim),
            router=Router(none, none, none, none),
        )

    def losses(self) -> Iterator[Losses]:
        """One batch a step."""
        batch = self._source.next(easy=self.done < self.recipe.easy_share)
        yield self.module(batch.to(self.accelerator.device), self.recipe.forced(self.done))

    def stepped(self) -> None:
        """The slow copies follow."""
        self.trainer.follow()

    def trained_state(self) -> dict[str, torch.Tensor]:
        """The adapter's tensors; the base is not among them."""
        return self.trainer.state_dict()

    def load_trained_state(self, state: dict[str, torch.Tensor]) -> None:
        """The adapter's tensors."""
        self.trainer.load_state_dict(state)

    def export(self, folder: Path) -> None:
        """Write the copy of the base with its gist rows, a chat template where it has none, and the adapter."""
        write_copy(self._base_dir, folder, self.rows, self.trainer.gist_rows)
        if not self._has_template:
            self.tokenizer.save_pretrained(folder)
        selection = self.trainer.selection
        replace(
            self.trainer.adapter,
            query_map=selection.query_map.detach(),
            key_map=self.trainer.key_map.detach(),
            value_map=selection.value_map.detach(),
            router=selection.router().detached(),
        ).save(folder)

    def evaluate(self, *, edits: int, ask: int) -> HeldOutScore:
        """Held-out score of the exported model, as the engine would load it."""
        if self.accelerator.is_main_process:
            self.export(self.model_dir)
        self.accelerator.wait_for_everyone()
        return score(EditableModel.load(self.model_dir), self.tokenizer, edits=edits, ask=ask, seed=7)


def _samples(words: Vocabulary) -> list[list[int]]:
    """Some chats as token ids."""
    facts = FactSource(0, held_out=False).distinct(_SAMPLES)
    opening = [*words.begin, *words.first_open]
    return [[*opening, *words.encode(f.question), *words.close, *words.encode(f.statement)] for f in facts]
