"""Settings of an edit adapter on a frozen base."""

from __future__ import annotations

from dataclasses import dataclass, field

from incomes_plugin.training.data.conversation import Mix
from incomes_plugin.training.schedule import Schedule


@dataclass(frozen=True)
class FrozenRecipe:
    """Everything a run depends on beside base and data.

    Attributes:
        minutes, steps: budget, steps first.
        gist_layers: how many of the last layers read gists; None = the upper half.
        max_gists: gist tokens, one per edit token.
        forced_share: as in the default model's recipe.
        rebuild: weight of the reconstruction loss.
        read_scale: factor of the logits inside a picked edit.
        mix: what conversations are about. What no edit answers is the base's own business: it is only routed to
            the zero-gist, and nothing in the system message is taught.
    """

    minutes: float = 90.0
    steps: int | None = None
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    gist_layers: int | None = None
    max_gists: int = 48
    edits_per_batch: int = 64
    max_row_tokens: int = 96
    forced_share: float = 0.5
    easy_share: float = 0.08
    rebuild: float = 0.5
    read_scale: float = 2.75
    weight_decay: float = 0.0
    seed: int = 1
    mix: Mix = field(default_factory=lambda: Mix(in_context=0.0))

    @property
    def schedule(self) -> Schedule:
        """Budget and learning rate."""
        return Schedule(self.minutes, self.steps, self.learning_rate, self.warmup_steps)

    def forced(self, done: float) -> float:
        """Chance of a forced read when a share `done` of the budget is spent."""
        return 0.8 * max(0.0, 1 - done / self.forced_share)
