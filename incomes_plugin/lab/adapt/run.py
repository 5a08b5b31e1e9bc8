"""One run of `incomes adapt`: a frozen base in, a folder with its edit adapter, model card and curves out."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from incomes_plugin.gist.fingerprint import base_fingerprint
from incomes_plugin.gist.types import GistShape, Packed
from incomes_plugin.lab.adapt.cache import FeatureCache, Report
from incomes_plugin.lab.adapt.calibrating import Held, Shares, calibrate
from incomes_plugin.lab.adapt.features import EditFeatures, FrozenBase, Ragged, ReadingFeatures
from incomes_plugin.lab.adapt.onward import Lead, joined, onward_prompts, onward_rules
from incomes_plugin.lab.adapt.plan import Plan, encode, training_plan
from incomes_plugin.lab.adapt.reading import ReadingSteps, train_reader
from incomes_plugin.lab.adapt.rivalry import couples, harmless_bound, rivalry
from incomes_plugin.lab.adapt.routing import RoutingSteps, train_router
from incomes_plugin.lab.adapt.verifying import (
    Prompts,
    VerifyingSteps,
    batch_logits,
    best_edits,
    route_table,
    train_verifier,
)
from incomes_plugin.lab.data.examples import Example
from incomes_plugin.model.adapter import BaseModel, EditAdapter
from incomes_plugin.model.decoder import Decoder
from incomes_plugin.model.edit_text import EditText
from incomes_plugin.model.template import template_of
from incomes_plugin.selection.codec import Codec
from incomes_plugin.selection.picks import CROWD, RoutingRules
from incomes_plugin.selection.reading import Reader
from incomes_plugin.selection.routing import Router
from incomes_plugin.selection.verifier import Verifier

_HELD_SHARE = 10
"""One edit of so many is kept out of training, for calibration."""

_MOST_READ = 9000
"""Answers that reading learns from."""

_LEFT_OPEN, _LEFT_OPEN_HELD = 3000, 500
"""Questions that lead nowhere, from which the verifier learns to refuse what they leave open; and for its rules."""

_COUPLES = 200
"""Contradictions, and as many pairs asked for at once, that rivalry is read off from."""


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
    latent_dim: int = 384
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
    """Everything that the frozen base computed. Features are standardised; edits' keys and values are as they come out
    of a gist."""

    edits: EditFeatures
    questions: Ragged
    refused: Ragged
    reading: ReadingFeatures
    read_rows: list[int]
    mean: torch.Tensor
    scale: torch.Tensor
    codec: Codec


def layers_for(num_layers: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Feature layers and reading layers of a base with so many layers.

    Features come from the first layer, from two fifths and from just above the middle of the base; a quarter of its
    layers, next to each other above them, read. These places were measured on a base of 30 layers (docs/adapt.md).
    """
    first = max(1, round(num_layers * 18 / 30))
    count = max(1, min(round(num_layers * 8 / 30), num_layers - first))
    features = {min(round(num_layers * part / 30), first) for part in (0, 12, 16)}
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
    train = [i for i, asked in enumerate(run.plan.asked) if held_edits.isdisjoint(asked.owners)]
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
        self._edit_text = EditText(self._ids)
        features, layers = layers_for(self.decoder.num_layers)
        heads = (self.decoder.num_kv_heads, self.decoder.head_dim)
        most = 2 * len(layers) * heads[0] * heads[1]
        self.shape = GistShape(features, layers, *heads, min(options.latent_dim, most))
        self.plan: Plan = training_plan(options.data, scale=options.scale, seed=options.seed, own=options.own)
        fingerprint, prefix = base_fingerprint(options.base_dir), self._prefix()
        identity = (fingerprint, self.shape.feature_layers, self.shape.layers, prefix, self.template)
        self._cache = FeatureCache(options.cache_folder, identity, options.cache_bytes)

    def timed(self, stage: str, work: Callable[[], Any]) -> Any:
        """Run a stage and keep how long it took."""
        start = time.monotonic()
        found = work()
        self.record.seconds[stage] = round(time.monotonic() - start, 1)
        return found

    def capture(self) -> Captured:
        """Capture the plan's texts."""
        base = FrozenBase(self.decoder, self.template, self.shape, self._prefix())
        edits = [list(self._edit_text(example.statement)) for example in self.plan.edits]
        asked = [encode(self.tokenizer, asked.messages) for asked in self.plan.asked]
        refused = [encode(self.tokenizer, refused.messages) for refused in self.plan.refused]
        answers = [[*self._ids(a.answer or ""), self._end()] for a in self.plan.asked]
        owners = [((a.edits, a.further, a.aside) for a in self.plan.asked), (r.near for r in self.plan.refused)]

        def capture(stage: str, texts: Sequence[object], of: Callable[[Sequence[int]], Any]) -> Any:
            return self._cache.capture(stage, texts, of, self.report)

        hops = [i for i, a in enumerate(self.plan.asked) if a.known]
        known = set()
        if hops:
            agrees = capture(
                "known",
                [(asked[i], answers[i]) for i in hops],
                lambda part: base.agrees([asked[hops[i]] for i in part], [answers[hops[i]] for i in part]),
            )
            known = {i for place, i in enumerate(hops) if bool(agrees[place][self._known_tokens(i)].all())}
        rows = self._read_rows(known)
        ends = [answers[i] for i in rows]
        learned_from = json.dumps([edits, asked, refused, rows, ends, *map(list, owners)])
        self._learned_from = hashlib.sha256(learned_from.encode()).hexdigest()
        found_edits = capture("edits", edits, lambda part: base.edits([edits[i] for i in part]))
        found_asked = capture("questions", asked, lambda part: base.questions([asked[i] for i in part]))
        found_refused = capture("refused", refused, lambda part: base.questions([refused[i] for i in part]))
        reading = capture(
            "answers",
            [(asked[i], end) for i, end in zip(rows, ends, strict=True)],
            lambda part: base.answers([asked[rows[i]] for i in part], [ends[i] for i in part]),
        )
        self.record.counts = {
            "edits": len(edits), "questions": len(asked), "answers read": len(rows), "refused": len(refused),
            "questions one step further": len(hops), "of these known to the base": len(known),
            "of these near misses": sum(refused.kind == "near" for refused in self.plan.refused),
        }  # fmt: skip
        flat = found_edits.features.flat.float()
        mean, scale = flat.mean(0), flat.std(0).clamp_min(1e-6)

        def standard(part: Ragged) -> Ragged:
            return Ragged((part.flat.float() - mean) / scale, part.starts)

        codec = Codec(self.shape)
        codec.fit(found_edits.keys.flat, found_edits.values.flat)
        given_back = replace(kept(codec, found_edits), features=standard(found_edits.features))
        return Captured(given_back, standard(found_asked), standard(found_refused), reading, rows, mean, scale, codec)

    def _known_tokens(self, asked: int) -> slice:
        """Where the part of an answer lies that the base must know by itself."""
        whole = self.plan.asked[asked]
        answer = whole.answer or ""
        before = answer.removesuffix(whole.known).rstrip()
        return slice(len(self._ids(before)), len(self._ids(answer)))

    def _read_rows(self, known: set[int]) -> list[int]:
        """Questions that reading learns from: the rare kinds, as far as the base knows the rest, and some others."""
        most = max(1, int(_MOST_READ * self.options.scale))
        chained = [i for i, a in enumerate(self.plan.asked) if a.further]
        rare = [i for i, a in enumerate(self.plan.asked) if a.rare and not a.further and (not a.known or i in known)]
        usual = [i for i, a in enumerate(self.plan.asked) if not a.rare and a.answer is not None]
        rng = random.Random(self.options.seed)
        rng.shuffle(usual)
        rng.shuffle(rare)
        rare = rare[: most // 2]
        return sorted((*rare, *usual[: most - len(rare)], *chained))

    def router(self, captured: Captured, train: list[int]) -> Router:
        """Train routing on the questions `train`."""
        owners = [self.plan.asked[i].edits for i in train]
        questions = Ragged.of([captured.questions[i] for i in train])
        return train_router(
            captured.edits.features, questions, owners, min(self.options.route_dim, self.shape.feature_dim),
            self.options.routing,
            seed=self.options.seed, tick=self._tick("routing"), checkpoint=self._checkpoint("routing"),
        )  # fmt: skip

    def verifier(self, captured: Captured, train: list[int], router: Router) -> Verifier:
        """Train verification on the questions `train` and nine tenths of the refused prompts."""
        plan = self.plan
        chosen = [i for i in range(len(captured.refused)) if i % _HELD_SHARE]
        asked = Prompts(
            Ragged.of([captured.questions[i] for i in train]), [plan.asked[i].edits for i in train],
            [plan.asked[i].messages[-1]["content"] for i in train],
        )  # fmt: skip
        refused = Prompts(
            Ragged.of([captured.refused[i] for i in chosen]), [() for _ in chosen],
            [plan.refused[i].messages[-1]["content"] for i in chosen], [plan.refused[i].near for i in chosen],
        )  # fmt: skip

        def may_answer(prompt: str, edit: int, asked: bool) -> bool:
            example = plan.edits[edit]
            distinct = asked and example.kind == "invented"
            return bool(example.subject) and not distinct and example.subject in prompt

        edits, num_parts = captured.edits.features, len(self.shape.feature_layers)
        led_on, led_nowhere = onward_prompts(edits, self._leads(captured, train, _LEFT_OPEN), num_parts)
        return train_verifier(
            router, edits, num_parts, joined(asked, led_on), joined(refused, led_nowhere), may_answer,
            self.options.verifying,
            seed=self.options.seed, tick=self._tick("verifying"), checkpoint=self._checkpoint("verifying"),
        )  # fmt: skip

    def _leads(self, captured: Captured, chosen: Sequence[int], most: int) -> list[Lead]:
        """Those among the chosen questions that lead from one edit to another, and `most` that do not, at scale 1."""
        plan = self.plan
        further = [i for i in chosen if len(plan.asked[i].owners) > 1]
        plain = [
            i for i in chosen if len(plan.asked[i].owners) == 1 and plan.asked[i].answer and not plan.asked[i].known
        ]
        count = min(len(plain), max(1, int(most * self.options.scale)))
        rows = further + random.Random(self.options.seed).sample(plain, count)
        found = []
        for i in rows:
            asked = plan.asked[i]
            first, *rest = asked.owners
            text = asked.messages[-1]["content"]
            found.append(Lead(captured.questions[i], first, text, rest[0] if rest else None, asked.aside))
        return found

    def reader(self, captured: Captured, held: set[int], router: Router) -> Reader:
        """Train reading on the captured answers whose edits are not held out."""
        rows = captured.read_rows
        places = [place for place, row in enumerate(rows) if held.isdisjoint(self.plan.asked[row].owners)]
        owners = [self.plan.asked[rows[place]].owners for place in places]
        reading = captured.reading
        found = ReadingFeatures(
            Ragged.of([reading.before[p] for p in places]), reading.prefixed[places], reading.prefix,
            Ragged.of([reading.rows[p] for p in places]), Ragged.of([reading.labels[p] for p in places]),
        )  # fmt: skip
        table = route_table(router, captured.edits.features, dtype=torch.bfloat16)
        rivals = best_edits(router, [captured.questions[rows[place]] for place in places], table, 5)
        return train_reader(
            self.decoder, self.shape, captured.edits, found, owners, rivals, self.options.reading,
            seed=self.options.seed, tick=self._tick("reading"), checkpoint=self._checkpoint("reading"),
        )  # fmt: skip

    def rules(self, captured: Captured, held: set[int], router: Router, verifier: Verifier) -> RoutingRules:
        """Thresholds from what was held out."""
        plan = self.plan
        asked = [
            i for i, asked in enumerate(plan.asked)
            if not asked.rare and asked.answer is not None and asked.edits[0] in held
        ]  # fmt: skip
        refused: dict[bool, list[int]] = {True: [], False: []}
        for i in range(0, len(captured.refused), _HELD_SHARE):
            refused[plan.refused[i].near is not None].append(i)
        found = Held(
            captured.edits.features, [e.subject or e.statement for e in plan.edits],
            Ragged.of([captured.questions[i] for i in asked]), [plan.asked[i].edits[0] for i in asked],
            Ragged.of([captured.refused[i] for i in refused[False]]),
            Ragged.of([captured.refused[i] for i in refused[True]]),
            [edit for i in refused[True] if (edit := plan.refused[i].near) is not None],
        )  # fmt: skip
        shares = self.options.shares
        rules = calibrate(router, verifier, found, RoutingRules(), shares, seed=self.options.seed)
        threshold = rules.threshold_among(len(found.edits))
        harmless = harmless_bound(router, verifier, found, threshold, rules.candidates, shares.drop)
        rules = replace(rules, rivalry=self._rivalry(captured, router, verifier, rules, harmless))
        ours = [i for i, a in enumerate(plan.asked) if not held.isdisjoint(a.owners)]
        return onward_rules(
            router, verifier, captured.edits.features, found.subjects,
            self._leads(captured, ours, _LEFT_OPEN_HELD), rules, tried=shares.tried, false=shares.onward,
        )  # fmt: skip

    def _rivalry(
        self, captured: Captured, router: Router, verifier: Verifier, rules: RoutingRules, harmless: float
    ) -> float:
        found = couples(max(10, int(_COUPLES * self.options.scale)), seed=self.options.seed)
        base = FrozenBase(self.decoder, self.template, self.shape, self._prefix())

        def standard(part: Ragged) -> list[torch.Tensor]:
            return [(part[i].float() - captured.mean) / captured.scale for i in range(len(part))]

        older, later = (
            standard(base.edits([list(self._edit_text(text)) for text in texts]).features)
            for texts in ([couple.older for couple in found], [couple.later for couple in found])
        )
        prompts = [encode(self.tokenizer, [{"role": "user", "content": couple.prompt}]) for couple in found]
        questions = standard(base.questions(prompts))
        threshold = rules.threshold_among(CROWD)
        met = [i for i in range(len(found)) if _accepts(router, verifier, questions[i], later[i], threshold)]
        asked, first, second = ([part[i] for i in met] for part in (questions, older, later))
        return rivalry(router, asked, first, second, [found[i].replaces for i in met], harmless)

    def adapter(
        self, captured: Captured, router: Router, verifier: Verifier, reader: Reader, rules: RoutingRules
    ) -> EditAdapter:
        """Everything together."""
        base = BaseModel(self.options.base_name, base_fingerprint(self.options.base_dir))
        return EditAdapter(
            base, self.shape, self.decoder.num_heads, self.template, self.options.max_edit_tokens,
            captured.mean, captured.scale, router, verifier, captured.codec, reader, rules,
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

    def _checkpoint(self, stage: str) -> Path:
        """The file for the state of a stage. Its name contains a hash of everything that the stage depends on, so that
        training with other texts or settings starts from the beginning."""
        options = self.options
        settings = {
            "routing": (),
            "verifying": (options.verifying,),
            "reading": (options.reading, options.latent_dim),
        }[stage]
        return self._cache.path(
            stage, [self._learned_from, options.seed, options.route_dim, options.routing, *settings]
        )

    def _tick(self, part: str) -> Callable[[int, int, float], None]:
        losses = self.record.losses.setdefault(part, [])

        def tick(step: int, steps: int, loss: float) -> None:
            losses.append(loss)
            self.report(part, step, steps)

        return tick


def _accepts(router: Router, verifier: Verifier, question: torch.Tensor, edit: torch.Tensor, threshold: float) -> bool:
    """Whether the verifier takes an edit for an answer: only then it can drop another."""
    with torch.inference_mode():
        return float(batch_logits(router, verifier, [question], [edit])[0]) >= threshold


def kept(codec: Codec, found: EditFeatures) -> EditFeatures:
    """The edits' keys and values as they come out of a gist: encoded, rounded to 8 bits, decoded."""
    latents = Packed.of(codec.encode(found.keys.flat, found.values.flat)).unpack()
    keys, values = (part.permute(2, 0, 1, 3).to(found.keys.flat.dtype).contiguous() for part in codec.decode(latents))
    starts = found.keys.starts
    return EditFeatures(found.features, Ragged(keys, starts), Ragged(values, starts))
