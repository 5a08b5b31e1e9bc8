"""One run of `incomes adapt`: a frozen base in, a folder with its edit adapter, model card and curves out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from incomes_plugin.gist.fingerprint import base_fingerprint
from incomes_plugin.gist.types import GistShape, Packed
from incomes_plugin.lab.adapt.base_features import BaseFeatures, Standard, kept
from incomes_plugin.lab.adapt.beside import processes, side_by_side
from incomes_plugin.lab.adapt.cache import FeatureCache
from incomes_plugin.lab.adapt.conflict_groups import groups
from incomes_plugin.lab.adapt.copied import SpelledEdits
from incomes_plugin.lab.adapt.features import FrozenBase, Ragged
from incomes_plugin.lab.adapt.judging import GroupedEdits, fitted, judged_pairs
from incomes_plugin.lab.adapt.onward import joined_prompts, onward_prompts
from incomes_plugin.lab.adapt.options import AdaptOptions, AdaptRecord
from incomes_plugin.lab.adapt.plan import Plan, training_plan
from incomes_plugin.lab.adapt.reading import train_reader
from incomes_plugin.lab.adapt.routing import train_router
from incomes_plugin.lab.adapt.rules import HELD_SHARE, Calibration, leads
from incomes_plugin.lab.adapt.tokens import PlanTokens
from incomes_plugin.lab.adapt.verifying import Prompts, nearest_edits, route_table, train_verifier
from incomes_plugin.lab.progress import StageProgress
from incomes_plugin.model.adapter import FORMAT, BaseModel, EditAdapter
from incomes_plugin.model.decoder import Decoder
from incomes_plugin.model.template import template_of
from incomes_plugin.selection.codec import Codec
from incomes_plugin.selection.conflicts import Judge
from incomes_plugin.selection.copying import Copier
from incomes_plugin.selection.reading import Reader
from incomes_plugin.selection.routing import Router
from incomes_plugin.selection.rules import RoutingRules
from incomes_plugin.selection.verifier import Verifier

_MOST_READ = 10500
"""Answers that reading learns from, those over several edits not counted."""

_LEFT_OPEN = 3000
"""Questions that lead nowhere, from which the verifier learns to refuse what they leave open."""

_GROUPS, _FEWEST_GROUPS = 150, 10
"""Scale of the groups of edits that the judge of conflicts is fitted to, and the least at any scale."""


def layers_for(num_layers: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Feature layers and reading layers of a base with so many layers.

    Features come from the first layer, from two fifths and from just above the middle of the base; a quarter of its
    layers, next to each other above them, read. These places were measured on a base of 30 layers (docs/adapt.md).
    """
    first = max(1, round(num_layers * 18 / 30))
    count = max(1, min(round(num_layers * 8 / 30), num_layers - first))
    features = {min(round(num_layers * part / 30), first) for part in (0, 12, 16)}
    return tuple(sorted(features)), tuple(range(first, first + count))


def adapt_base(options: AdaptOptions, report: StageProgress) -> tuple[EditAdapter, AdaptRecord]:
    """Make the adapter; see the module docstring.

    Raises:
        UnsupportedEngine: a base of another shape, or without a usable chat template.
        InvalidValue: the feature cache would grow beyond its limit.
    """
    run = _Run(options, report)
    captured = run.timed("capture", run.capture)
    held_edits = set(range(0, len(run.plan.edits), HELD_SHARE))
    asked = enumerate(run.plan.asked)
    train = [i for i, one in asked if held_edits.isdisjoint(one.owners)]
    verified = [i for i in train if not run.plan.asked[i].unverified]
    router = run.timed("routing", lambda: run.router(captured, train))
    beside = [lambda: run.verify_beside(captured, verified, router)] if processes() > 1 else []
    reader, copier = run.timed(
        "reading, verifying beside it" if beside else "reading",
        lambda: side_by_side(lambda: run.reader(captured, held_edits, router), beside),
    )
    verifier = run.timed("verifying", lambda: run.verifier(captured, verified, router))
    judge = run.timed("judging", lambda: run.judge(captured, router, verifier))
    rules = run.timed("calibrating", lambda: run.rules(captured, held_edits, router, verifier, judge))
    adapter = run.adapter(captured, router, verifier, judge, reader, copier, rules)
    adapter.save(options.out)
    return adapter, run.record


def _silent(_stage: str, _done: int, _total: int) -> None:
    """The progress of a process without a terminal."""


class _Run:
    """State of one run."""

    def __init__(self, options: AdaptOptions, report: StageProgress) -> None:
        self.options = options
        self.report = report
        self.record = AdaptRecord()
        self.tokenizer = AutoTokenizer.from_pretrained(options.base_dir)
        model = AutoModelForCausalLM.from_pretrained(options.base_dir, dtype=torch.bfloat16)
        self.decoder = Decoder(model.eval().requires_grad_(False))
        self.template = template_of(self.tokenizer)
        features, layers = layers_for(self.decoder.num_layers)
        heads = (self.decoder.num_kv_heads, self.decoder.head_dim)
        most = 2 * len(layers) * heads[0] * heads[1]
        self.shape = GistShape(features, layers, *heads, min(options.latent_dim, most))
        self.plan: Plan = training_plan(options.data, scale=options.scale, seed=options.seed, own=options.own)
        self.tokens = PlanTokens(self.tokenizer, self.template, self.plan)
        layers_and_text = (self.shape.feature_layers, self.shape.layers, self.tokens.prefix, self.template)
        identity = (base_fingerprint(options.base_dir), *layers_and_text)
        self._cache = FeatureCache(options.cache_folder, identity, options.cache_bytes)

    def timed(self, stage: str, work: Callable[[], Any]) -> Any:
        """Run a stage and keep how long it took."""
        start = time.monotonic()
        found = work()
        self.record.seconds[stage] = round(time.monotonic() - start, 1)
        return found

    def capture(self) -> BaseFeatures:
        """Capture the plan's texts."""
        base, tokens = self._base(), self.tokens
        edits, asked, refused, answers = tokens.edits, tokens.asked, tokens.refused, tokens.answers

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
            known = {i for place, i in enumerate(hops) if bool(agrees[place][tokens.known_part(i)].all())}
        most = max(1, int(_MOST_READ * self.options.scale))
        rows = tokens.read_rows(known, most, seed=self.options.seed)
        ends = [answers[i] for i in rows]
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
        standard = Standard.of(found_edits.features)
        codec = Codec(self.shape)
        codec.fit(found_edits.keys.flat, found_edits.values.flat)
        given_back, latents = kept(codec, found_edits)
        given_back = replace(given_back, features=standard(found_edits.features))
        return BaseFeatures(
            given_back, standard(found_asked), standard(found_refused), reading, rows, standard, codec, latents
        )

    def router(self, captured: BaseFeatures, train: list[int]) -> Router:
        """Train routing on the questions `train`, and on what those that lead further ask next."""
        led_on, _ = self._onward(captured, train)
        asked = joined_prompts(self._asked(captured, train), led_on)
        return train_router(
            captured.edits.features, asked.features, asked.owners, min(self.options.route_dim, self.shape.feature_dim),
            self.options.routing,
            seed=self.options.seed, tick=self._tick("routing"),
            checkpoint=self._checkpoint("routing", self.tokens.routing_texts()),
        )  # fmt: skip

    def verifier(self, captured: BaseFeatures, train: list[int], router: Router) -> Verifier:
        """Train verification on the questions `train` and nine tenths of the refused prompts."""
        plan = self.plan
        chosen = [i for i in range(len(captured.refused)) if i % HELD_SHARE]
        asked = self._asked(captured, train)
        refused = Prompts(
            Ragged.of([captured.refused[i] for i in chosen]), [() for _ in chosen],
            [plan.refused[i].messages[-1]["content"] for i in chosen], [plan.refused[i].near for i in chosen],
        )  # fmt: skip

        def may_answer(prompt: str, edit: int, asked: bool) -> bool:
            example = plan.edits[edit]
            distinct = asked and example.kind == "invented"
            return bool(example.subject) and not distinct and example.subject in prompt

        led_on, led_nowhere = self._onward(captured, train)
        return train_verifier(
            router, captured.edits.features, len(self.shape.feature_layers),
            joined_prompts(asked, led_on), joined_prompts(refused, led_nowhere), may_answer, self.options.verifying,
            seed=self.options.seed, tick=self._tick("verifying"),
            checkpoint=self._checkpoint(
                "verifying", self.tokens.verifying_texts(), self.options.scale, self.options.verifying
            ),
        )  # fmt: skip

    def _asked(self, captured: BaseFeatures, train: list[int]) -> Prompts:
        asked = [self.plan.asked[i] for i in train]
        return Prompts(
            Ragged.of([captured.questions[i] for i in train]), [one.edits for one in asked],
            [one.messages[-1]["content"] for one in asked],
        )  # fmt: skip

    def _onward(self, captured: BaseFeatures, train: list[int]) -> tuple[Prompts, Prompts]:
        """What the questions `train` ask next, and what leads nowhere; see `onward_prompts`."""
        edits, num_parts = captured.edits.features, len(self.shape.feature_layers)
        scale, seed = self.options.scale, self.options.seed
        found = leads(self.plan, captured.questions, edits, num_parts, train, _LEFT_OPEN, scale=scale, seed=seed)
        return onward_prompts(edits, found, num_parts)

    def verify_beside(self, captured: BaseFeatures, train: list[int], router: Router) -> None:
        """As `verifier`, in a process of its own: it leaves the checkpoint, and says nothing on the way."""
        self.report = _silent
        self.verifier(captured, train, router)

    def judge(self, captured: BaseFeatures, router: Router, verifier: Verifier) -> Judge:
        """Fit the judge of conflicts to groups of edits of its own; features are rounded as a gist holds them."""
        options, tokens = self.options, self.tokens
        members = groups("train", options.data, max(_FEWEST_GROUPS, int(_GROUPS * options.scale)))
        texts = list(dict.fromkeys(text for group in members for text in group.texts))
        ids = [tokens.edit(text) for text in texts]
        shape = replace(self.shape, layers=(max(self.shape.feature_layers),))  # no layer above is computed
        base = FrozenBase(self.decoder, self.template, shape)
        found = self._cache.capture(
            "conflicts", ids, lambda part: base.edits([ids[i] for i in part]).features, self.report
        )
        found = captured.standard(found)
        features = {text: Packed.of(found[i]).unpack() for i, text in enumerate(texts)}
        pairs = list(judged_pairs(GroupedEdits(members, features, router, verifier), self.report))
        judge, self.record.conflicts = fitted(pairs, options.judging, seed=options.seed)
        return judge

    def reader(self, captured: BaseFeatures, held: set[int], router: Router) -> tuple[Reader, Copier]:
        """Train reading and copying on the captured answers whose edits are not held out."""
        options, rows = self.options, captured.read_rows
        places = [place for place, row in enumerate(rows) if held.isdisjoint(self.plan.asked[row].owners)]
        owners = [self.plan.asked[rows[place]].owners for place in places]
        table = route_table(router, captured.edits.features, dtype=torch.bfloat16)
        rivals = nearest_edits(router, [captured.questions[rows[place]] for place in places], table, 5)
        spelled = SpelledEdits(captured.latents, self.tokens.spellings)
        leading = [len(self.plan.asked[rows[place]].further) for place in places]
        given = [self.tokens.given(rows[place]) for place in places]
        return train_reader(
            self.decoder, self.shape, captured.edits, spelled, captured.reading, places, owners, rivals, leading, given,
            options.reading,
            seed=options.seed, tick=self._tick("reading"),
            checkpoint=self._checkpoint(
                "reading", self.tokens.reading_texts(rows), options.reading, options.latent_dim
            ),
        )  # fmt: skip

    def rules(
        self, captured: BaseFeatures, held: set[int], router: Router, verifier: Verifier, judge: Judge
    ) -> RoutingRules:
        """Rules of picking, from what was held out."""
        options = self.options
        found = Calibration(self.plan, captured, held, router, verifier, judge, scale=options.scale, seed=options.seed)
        return found.rules(options.shares, options.reading.led, self._base(), self.tokens)

    def adapter(
        self, captured: BaseFeatures, router: Router, verifier: Verifier, judge: Judge, reader: Reader, copier: Copier,
        rules: RoutingRules,
    ) -> EditAdapter:  # fmt: skip
        """Everything together."""
        base = BaseModel(self.options.base_name, base_fingerprint(self.options.base_dir))
        return EditAdapter(
            base, self.shape, self.decoder.num_heads, self.template, self.options.max_edit_tokens,
            captured.standard.mean, captured.standard.scale, router, verifier, judge, captured.codec, reader, copier,
            rules,
        )  # fmt: skip

    def _base(self) -> FrozenBase:
        return FrozenBase(self.decoder, self.template, self.shape, self.tokens.prefix)

    def _checkpoint(self, stage: str, *learned_from: object) -> Path:
        """The file for the state of a stage, named by what the stage learns from: with other texts or settings of its
        own it starts from the beginning, with other ones of another stage it goes on. All stages learn from the
        router's settings: routing itself, and the others from what the router finds. Parts of another format of adapter
        have other tensors.
        """
        options = self.options
        return self._cache.path(stage, [*learned_from, FORMAT, options.seed, options.route_dim, options.routing])

    def _tick(self, part: str) -> Callable[[int, int, float], None]:
        losses = self.record.losses.setdefault(part, [])

        def tick(step: int, steps: int, loss: float) -> None:
            losses.append(loss)
            self.report(part, step, steps)

        return tick
