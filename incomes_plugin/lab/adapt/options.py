"""What a run of `incomes adapt` is to do, and what it did."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from incomes_plugin.lab.adapt.calibrating import Shares
from incomes_plugin.lab.adapt.judging import JudgingSteps
from incomes_plugin.lab.adapt.reading import ReadingSteps
from incomes_plugin.lab.adapt.routing import RoutingSteps
from incomes_plugin.lab.adapt.verifying import VerifyingSteps
from incomes_plugin.lab.data.examples import Example


@dataclass(frozen=True)
class AdaptOptions:
    """What a run does.

    Attributes:
        base_dir, base_name: the base, and how the adapter names it (`default`, a hub id, a folder).
        out: folder of the adapter.
        data: folder of published edits and prompts, or None.
        own: a user's examples.
        scale: how much is looked at; 1.0 = the default adapter's run.
        seed: of everything that is drawn.
        cache, cache_bytes: folder of captured features and its limit.
        latent_dim, route_dim: widths of what a gist keeps of a token, and of route keys.
        routing, verifying, judging, reading: how long each part is trained.
        shares: what the thresholds may cost.
    """

    base_dir: Path
    base_name: str
    out: Path
    data: Path | None
    own: tuple[Example, ...] = ()
    scale: float = 1.0
    seed: int = 7
    cache: Path | None = None
    cache_bytes: int = 12 << 30
    latent_dim: int = 384
    route_dim: int = 128
    max_edit_tokens: int = 256
    routing: RoutingSteps = field(default_factory=RoutingSteps)
    verifying: VerifyingSteps = field(default_factory=VerifyingSteps)
    judging: JudgingSteps = field(default_factory=JudgingSteps)
    reading: ReadingSteps = field(default_factory=ReadingSteps)
    shares: Shares = field(default_factory=Shares)

    @property
    def cache_folder(self) -> Path:
        """Where captured features lie."""
        return self.cache or self.out / "cache"


@dataclass
class AdaptRecord:
    """What a run did.

    Attributes:
        seconds: by stage.
        losses: by part, one a step.
        counts: edits, questions and prompts looked at, by kind.
        conflicts: share of the new edits for which the judge found a conflict, and their number, by kind and data set;
            told by nets that had not seen them.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    conflicts: dict[str, tuple[float, int]] = field(default_factory=dict)
