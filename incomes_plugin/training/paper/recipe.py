"""Settings of the paper's recipe (InComeS, arXiv 2505.22156, section 4 and its released code)."""

from __future__ import annotations

from dataclasses import dataclass

from incomes_plugin.training.schedule import Schedule


@dataclass(frozen=True)
class PaperRecipe:
    """All defaults are the paper's for a model of a billion parameters; small models want a higher learning rate.

    Attributes:
        minutes, steps: budget, steps first; the paper makes 3,000 updates.
        samples: edits, and questions about them, of one update of one process.
        pool_sizes, pool_shares: an update is cut into chunks of these sizes; the edits of a chunk are one pool.
        beta: factor of the cross-entropy's weights.
        max_edit_tokens, max_tokens: longer edits, and longer texts with their edit, are left out.
        published: share of edits from published data, where there is some; the rest are invented.
    """

    minutes: float = 90.0
    steps: int | None = None
    learning_rate: float = 1e-5
    samples: int = 256
    pool_sizes: tuple[int, ...] = (8, 16, 32, 64, 128)
    pool_shares: tuple[float, ...] = (0.05, 0.05, 0.05, 0.15, 0.70)
    beta: float = 0.5
    max_edit_tokens: int = 128
    max_tokens: int = 256
    weight_decay: float = 0.0
    published: float = 0.35
    seed: int = 42

    @property
    def schedule(self) -> Schedule:
        """Warm-up over a tenth of the budget, cosine to a tenth of the rate."""
        return Schedule(self.minutes, self.steps, self.learning_rate, warmup_steps=1, warmup_share=0.1, floor=0.1)
