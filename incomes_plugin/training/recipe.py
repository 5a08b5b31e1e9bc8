"""The default model's recipe: sizes, shares, schedule. One frozen object; the model card quotes it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from incomes_plugin.gist.types import GistShape
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.selection.routing import Router
from incomes_plugin.selection.scale import LogScale
from incomes_plugin.training.data.conversation import Mix
from incomes_plugin.training.data.tokenizer import gist_tokens
from incomes_plugin.training.schedule import Schedule

_READ_SCALE = 5.5
"""Factor of the logits inside a picked edit."""

SIZES: dict[str, dict[str, int]] = {
    "small": {},
    "base": {"hidden_size": 512, "intermediate_size": 1408, "num_layers": 8, "num_heads": 8, "edits_per_batch": 256},
}
"""What `--size` changes: `small` is a few million parameters for a CPU, `base` has 25 million and wants a GPU."""


@dataclass(frozen=True)
class Recipe:
    """Everything a run depends on beside the data.

    Attributes:
        minutes, steps: budget of time, or of steps where that is given; the learning rate falls to a twentieth over it.
        easy_share: share of the time with pools of at most eight edits: decoding starts before selection is hard.
        forced_share: share of the time over which the chance that an answer position reads the right entry, whatever it
            selects, falls from 0.8 to 0: decoding a value is learned before selection is good.
    """

    vocab_size: int = 4096
    hidden_size: int = 256
    num_layers: int = 4
    gist_layers: int = 2
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 64
    intermediate_size: int = 640
    max_positions: int = 2048
    max_gists: int = 48
    edits_per_batch: int = 64
    max_row_tokens: int = 56
    minutes: float = 90.0
    steps: int | None = None
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    easy_share: float = 0.08
    forced_share: float = 0.5
    weight_decay: float = 0.05
    seed: int = 1
    mix: Mix = field(default_factory=Mix)

    @property
    def schedule(self) -> Schedule:
        """Budget and learning rate."""
        return Schedule(self.minutes, self.steps, self.learning_rate, self.warmup_steps)

    def forced(self, done: float) -> float:
        """Chance of a forced read when a share `done` of the budget is spent, see `forced_share`."""
        return 0.8 * max(0.0, 1 - done / self.forced_share)

    def model(self, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
        """A fresh model."""
        torch.manual_seed(self.seed)
        config = LlamaConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            num_key_value_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            max_position_embeddings=self.max_positions,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        model = LlamaForCausalLM(config)
        # Facts want the most likely answer: servers that read the generation config then decode greedily by default.
        model.generation_config.do_sample = True
        model.generation_config.top_k = 1
        return model

    def adapter(self, tokenizer: PreTrainedTokenizerFast) -> EditAdapter:
        """The adapter around it: gist layers are the last ones; tensors are placeholders until trained."""
        layers = tuple(range(self.num_layers - self.gist_layers, self.num_layers))
        shape = GistShape(layers, self.max_gists, self.num_kv_heads, self.head_dim)
        none = torch.empty(0)
        return EditAdapter(
            shape=shape,
            gist_token_ids=tuple(_token_id(tokenizer, name) for name in gist_tokens(self.max_gists)),
            bos_token_id=tokenizer.bos_token_id,
            max_edit_tokens=self.max_gists,
            scale=LogScale(base=_READ_SCALE, slope=0.0),
            zero_keys=torch.zeros(len(layers), self.num_kv_heads, self.head_dim),
            router=Router(none, none, none, none),
        )


def _token_id(tokenizer: PreTrainedTokenizerFast, name: str) -> int:
    return int(tokenizer.convert_tokens_to_ids(name))  # type: ignore[arg-type]
