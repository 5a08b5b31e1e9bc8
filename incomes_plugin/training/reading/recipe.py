"""Settings of new layers that read the prompt."""

from __future__ import annotations

from dataclasses import dataclass, field

from incomes_plugin.training.data.conversation import Mix
from incomes_plugin.training.schedule import Schedule


@dataclass(frozen=True)
class ReadingRecipe:
    """Everything a run depends on beside base and data.

    Attributes:
        minutes, steps: budget, steps first.
        num_layers: new decoder layers, above all others.
        edits_every: steps from one batch with edits to the next; every step has one with facts in its prompts.
        crowd: edits that the tokens of a batch with edits pick among, those of earlier batches included.
        edits_per_batch: edits captured for a batch with edits, and rows of a batch of short rows.
    """

    minutes: float = 60.0
    steps: int | None = None
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    num_layers: int = 2
    edits_every: int = 3
    crowd: int = 2048
    edits_per_batch: int = 64
    max_row_tokens: int = 56
    weight_decay: float = 0.05
    seed: int = 1
    mix: Mix = field(default_factory=Mix)

    @property
    def schedule(self) -> Schedule:
        """Budget and learning rate."""
        return Schedule(self.minutes, self.steps, self.learning_rate, self.warmup_steps)
