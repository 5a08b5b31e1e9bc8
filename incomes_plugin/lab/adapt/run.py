"""One run of `incomes adapt`: a frozen base in, a folder with its edit adapter, model card and curves out."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from incomes_plugin.gist.fingerprint import base_fingerprint
from incomes_plugin.gist.types import GistShape
from incomes_plugin.lab.adapt.cache import FeatureCache, Report
from incomes_plugin.lab.adapt.calibrating import Held, Shares, calibrate
from incomes_plugin.lab.adapt.features import EditFeatures, FrozenBase, Ragged, ReadingFeatures
from incomes_plugin.lab.adapt.plan import Plan, encode, training_plan
from incomes_plugin.lab.adapt.reading import ReadingSteps, train_reader
from incomes_plugin.lab.adapt.routing import RoutingSteps, train_router
from incomes_plugin.lab.adapt.verifying import Pair, VerifyingSteps, best_edits, route_table, train_verifier
from incomes_plugin.lab.data.examples import Example
from incomes_plugin.model.adapter import BaseModel, EditAdapter
from incomes_plugin.model.decoder import Decoder
from incomes_plugin.model.template import template_of
from incomes_plugin.selection.picks import RoutingRules
from incomes_plugin.selection.reading import Reader
from incomes_plugin.selection.routing import Router
from incomes_plugin.selection.verifier import Verifier

_HELD_SHARE = 10
"""One edit of so many is kept out of training, for calibration."""

_RIVALRY = 0.018
"""Of 120 invented contradictions some 90 % stay below it, of 120 pairs that one question asks for 8 %."""


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
        key_dim, value_dim, route_dim: widths of what a gist keeps, and of route keys.
        routing, verifying, reading: how long each part is trained.
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
    key_dim: int = 64
    value_dim: int = 64
    route_dim: int = 128
    max_edit_tokens: int = 256
    routing: RoutingSteps = field(default_factory=RoutingSteps)
    verifying: VerifyingSteps = field(default_factory=VerifyingSteps)
    reading: ReadingSteps = field(default_factory=ReadingSteps)
    shares: Shares = field(default_factory=Shares)

    @property
    def cache_folder(self) -> Path:
        """Where captured features lie."""
        return self.cache or self.out / "cache"


@dataclass
class Record:
    """What a run did.

    Attributes:
        seconds: by stage.
        losses: by part, one a step.
        counts: edits, questions and prompts looked at, by kind.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Captured:
    """Everything the frozen base says, features standardised."""

    edits: EditFeatures
    questions: Ragged
    refused: Ragged
    reading: ReadingFeatures
    read_rows: list[int]
    mean: torch.Tensor
    scale: torch.Tensor


def layers_for(num_layers: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Feature layers and reading layers of a base with so many layers.

    Features come from two fifths and from just above the middle of the base; a quarter of its layers, next to each
    other above them, read. These places were measured on a base of 30 layers (docs/adapt.md).
    """
    first = max(1, round(num_layers * 18 / 30))
    count = max(1, min(round(num_layers * 8 / 30), num_layers - first))
    features = {min(round(num_layers * part / 30), first) for part in (12, 16)}
    return tuple(sorted(features)), tuple(range(first, first + count))


def adapt_base(options: AdaptOptions, report: Report) -> tuple[EditAdapter, Record]:
    """Make the adapter; see the module docstring.

    Raises:
        UnsupportedEngine: a base of another shape, or without a usable chat template.
        InvalidValue: the feature cache would grow beyond its limit.
    """
    run = _Run(options, report)
    captured = run.timed("capture", run.capture)
    held_edits = set(range(0, len(run.plan.edits), _HELD_SHARE))
    train = [i for i, (edit, _, _) in enumerate(run.plan.asked) if edit not in held_edits]
    router = run.timed("routing", lambda: run.router(captured, train))
    verifier = run.timed("verifying", lambda: run.verifier(captured, train, router))
    reader = run.timed("reading", lambda: run.reader(captured, held_edits, router))
    rules = run.timed("calibrating", lambda: run.rules(captured, held_edits, router, verifier))
    adapter = run.adapter(captured, router, verifier, reader, rules)
    adapter.save(options.out)
    return adapter, run.record


class _Run:
    """State of one run."""

    def __init__(self, options: AdaptOptions, report: Report) -> None:
        self.options = options
        self.report = report
        self.record = Record()
        self.tokenizer = AutoTokenizer.from_pretrained(options.base_dir)
        model = AutoModelForCausalLM.from_pretrained(options.base_dir, dtype=torch.bfloat16)
        self.decoder = Decoder(model.eval().requires_grad_(False))
        self.template = template_of(self.tokenizer)
        features, layers = layers_for(self.decoder.num_layers)
        self.shape = GistShape(
            features, layers, self.decoder.num_kv_heads, self.decoder.head_dim,
            min(options.key_dim, self.decoder.head_dim), min(options.value_dim, self.decoder.head_dim),
        )  # fmt: skip
        self.plan: Plan = training_plan(options.data, scale=options.scale, seed=options.seed, own=options.own)

    def timed(self, stage: str, work: Callable[[], Any]) -> Any:
        """Run a stage and keep how long it took."""
        start = time.monotonic()
        found = work()
        self.record.seconds[stage] = round(time.monotonic() - start, 1)
        return found

    def capture(self) -> Captured:
        """What the base says of the plan's texts."""
        base = FrozenBase(self.decoder, self.template, self.shape, self._prefix())
        edits = [self._ids(example.statement) for example in self.plan.edits]
        asked = [encode(self.tokenizer, messages) for _, messages, _ in self.plan.asked]
        refused = [encode(self.tokenizer, messages) for _, messages in self.plan.refused]
        rows = list(range(len(asked)))
        random.Random(self.options.seed).shuffle(rows)
        rows = sorted(rows[: max(1, int(7000 * self.options.scale))])
        ends = [[*self._ids(self.plan.asked[i][2]), self._end()] for i in rows]
        cache = self._cache()
        found = Captured(
            cache.capture("edits", edits, lambda part: base.edits([edits[i] for i in part]), self.report),
            cache.capture("questions", asked, lambda part: base.questions([asked[i] for i in part]), self.report),
            cache.capture("refused", refused, lambda part: base.questions([refused[i] for i in part]), self.report),
            cache.capture(
                "answers", [(asked[i], end) for i, end in zip(rows, ends, strict=True)],
                lambda part: base.answers([asked[rows[i]] for i in part], [ends[i] for i in part]), self.report,
            ),
            rows, torch.empty(0), torch.empty(0),
        )  # fmt: skip
        self.record.counts = {"edits": len(edits), "questions": len(asked), "refused": len(refused)}
        return _standardised(found)

    def router(self, captured: Captured, train: list[int]) -> Router:
        """Train routing on the questions `train`."""
        owners = [self.plan.asked[i][0] for i in train]
        questions = Ragged.of([captured.questions[i] for i in train])
        return train_router(
            captured.edits.features, questions, owners, min(self.options.route_dim, self.shape.feature_dim),
            self.options.routing,
            seed=self.options.seed, tick=self._tick("routing"),
        )  # fmt: skip

    def verifier(self, captured: Captured, train: list[int], router: Router) -> Verifier:
        """Train verification on the questions `train` and nine tenths of the refused prompts."""
        owners = [self.plan.asked[i][0] for i in train]
        questions = Ragged.of([captured.questions[i] for i in train])
        chosen = [i for i in range(len(captured.refused)) if i % _HELD_SHARE]
        refused = Ragged.of([captured.refused[i] for i in chosen])

        def weigh(pair: Pair) -> float:
            return 2.0 if pair.refused and self.plan.refused[chosen[pair.question]][0] != "near" else 1.0

        return train_verifier(
            router, captured.edits.features, questions, owners, refused, self.options.verifying,
            seed=self.options.seed, tick=self._tick("verifying"), weigh=weigh,
        )  # fmt: skip

    def reader(self, captured: Captured, held: set[int], router: Router) -> Reader:
        """Train reading on the captured answers whose edits are not held out."""
        places = [place for place, row in enumerate(captured.read_rows) if self.plan.asked[row][0] not in held]
        owners = [self.plan.asked[captured.read_rows[place]][0] for place in places]
        reading = captured.reading
        found = ReadingFeatures(
            Ragged.of([reading.before[p] for p in places]), reading.prefixed[places], reading.prefix,
            Ragged.of([reading.rows[p] for p in places]), Ragged.of([reading.labels[p] for p in places]),
        )  # fmt: skip
        table = route_table(router, captured.edits.features, dtype=torch.bfloat16)
        rivals: dict[int, list[int]] = {}

        def rivals_of(place: int) -> Sequence[int]:
            if place not in rivals:
                question = captured.questions[captured.read_rows[places[place]]]
                rivals[place] = best_edits(router, question, table, 4)
            return rivals[place]

        return train_reader(
            self.decoder, self.shape, captured.edits, found, owners, rivals_of, self.options.reading,
            seed=self.options.seed, tick=self._tick("reading"),
        )  # fmt: skip

    def rules(self, captured: Captured, held: set[int], router: Router, verifier: Verifier) -> RoutingRules:
        """Thresholds from what was held out."""
        asked = [i for i, (edit, _, _) in enumerate(self.plan.asked) if edit in held]
        refused = [i for i in range(0, len(captured.refused), _HELD_SHARE) if self.plan.refused[i][0] != "near"]
        return calibrate(
            router, verifier,
            Held(
                captured.edits.features, Ragged.of([captured.questions[i] for i in asked]),
                [self.plan.asked[i][0] for i in asked], Ragged.of([captured.refused[i] for i in refused]),
            ),
            RoutingRules(rivalry=_RIVALRY), self.options.shares, seed=self.options.seed,
        )  # fmt: skip

    def adapter(
        self, captured: Captured, router: Router, verifier: Verifier, reader: Reader, rules: RoutingRules
    ) -> EditAdapter:
        """Everything together."""
        base = BaseModel(self.options.base_name, base_fingerprint(self.options.base_dir))
        return EditAdapter(
            base, self.shape, self.decoder.num_heads, self.template, self.options.max_edit_tokens,
            captured.mean, captured.scale, router, verifier, reader, rules,
        )  # fmt: skip

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _end(self) -> int:
        """What ends an answer: the first token behind the user's turn, or the end-of-text token."""
        first = self.template.answer_prefix[0]
        return first if first in self.tokenizer.all_special_ids else int(self.tokenizer.eos_token_id)

    def _prefix(self) -> list[int]:
        """What the template puts in front of a lone user turn's text."""
        one, two = (encode(self.tokenizer, [{"role": "user", "content": text}]) for text in ("Quartz", "7"))
        same = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), 0)
        return one[:same]

    def _cache(self) -> FeatureCache:
        identity = (base_fingerprint(self.options.base_dir), asdict(self.shape), self._prefix(), self.template)
        return FeatureCache(self.options.cache_folder, identity, self.options.cache_bytes)

    def _tick(self, part: str) -> Callable[[int, int, float], None]:
        losses = self.record.losses.setdefault(part, [])

        def tick(step: int, steps: int, loss: float) -> None:
            losses.append(loss)
            self.report(part, step, steps)

        return tick


def _standardised(found: Captured) -> Captured:
    flat = found.edits.features.flat.float()
    mean, scale = flat.mean(0), flat.std(0).clamp_min(1e-6)

    def standard(part: Ragged) -> Ragged:
        return Ragged((part.flat.float() - mean) / scale, part.starts)

    edits = EditFeatures(standard(found.edits.features), found.edits.keys, found.edits.values)
    return Captured(
        edits, standard(found.questions), standard(found.refused), found.reading, found.read_rows, mean, scale
    )
