"""`python -m benchmarks.verbatim_finding --cache FOLDER`: which words should the gist of a verbatim edit be made from?

Verbatim edits stand among 1,000 facts of the dev split. For each wording of what is captured, and with and without
the look at the question's words (`asks_for`): is an edit found by questions of callers, by its own example questions,
and is one found by questions that it does not answer?
Features, routing and verifier are the engine's own, of the default base and adapter.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from incomes_server.edits.verbatim import RecallKeys, asks_for, found_by
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.conflicts import shown
from benchmarks.routing import say
from benchmarks.verbatim_titles import Titled, titled
from incomes_plugin.gist.fingerprint import base_fingerprint
from incomes_plugin.gist.types import Packed
from incomes_plugin.lab.adapt.cache import FeatureCache
from incomes_plugin.lab.adapt.features import FrozenBase
from incomes_plugin.lab.evaluation.datasets import load_dataset
from incomes_plugin.lab.evaluation.unrelated import unrelated
from incomes_plugin.lab.provenance import provenance
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.decoder import Decoder
from incomes_plugin.model.resolve import resolve
from incomes_plugin.pool.table import ROW_TOKENS
from incomes_plugin.selection.picks import choose
from incomes_plugin.selection.routing import RouteKeys

NUM_FACTS = 1000
ASKED_FACTS = 100
WORDINGS: Mapping[str, Callable[[Titled], str]] = {
    "title": lambda e: e.title,
    "title: text": lambda e: f"{e.title}: {e.text}",
    "title, questions": lambda e: "\n".join([e.title, *e.examples]),
    "title, questions, text": lambda e: "\n".join([e.title, *e.examples, e.text]),
    "what the server takes (`found_by`)": lambda e: found_by(RecallKeys(e.title, e.examples)),
    "the same, its text behind it": lambda e: f"{found_by(RecallKeys(e.title, e.examples))}\n{e.text}",
}


@dataclass(frozen=True)
class Asked:
    """A prompt, and which verbatim edit shall lead its picks; None: none."""

    prompt: str
    kind: str
    edit: int | None


def main(argv: list[str]) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verbatim_finding", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "verbatim-finding.json")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the published sets")
    parser.add_argument("--cache", type=Path, required=True, help="folder of captured features, 18 KB a text")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    result: dict[str, Any] = provenance(f"python -m benchmarks.verbatim_finding {' '.join(argv)}".strip())
    result |= measured(args.data, args.cache)
    args.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    for name, found in result["wordings"].items():
        line = ", ".join(f"{kind} {share['share']:.3f}" for kind, share in found.items())
        sys.stdout.write(f"{name}: {line}\n")
    return 0


@torch.inference_mode()
def measured(data: Path, folder: Path) -> dict[str, Any]:
    """Every wording beside the same facts."""
    edits = titled()
    records = load_dataset("zsre", split="dev", data_dir=data, num_edits=0, asked=0, seed=0).records
    more = load_dataset("counterfact", split="dev", data_dir=data, num_edits=0, asked=0, seed=0).records
    facts = random.Random(1).sample([*records, *more], NUM_FACTS)
    asked = questions(edits, facts[:ASKED_FACTS], data)
    bench = Bench(folder, [fact.edits[0].statement for fact in facts], [one.prompt for one in asked])
    keys = [RecallKeys(edit.title, edit.examples) for edit in edits]
    found = {}
    for name, wording in WORDINGS.items():
        picked = bench.picked([wording(edit) for edit in edits])
        named = [
            next((place for place in places if asks_for(keys[place], one.prompt)), None)
            for one, places in zip(asked, picked, strict=True)
        ]
        found[name] = by_kind(asked, [places[0] if places else None for places in picked])
        found[f"{name}, and named"] = by_kind(asked, named)
        say("wording", len(found) // 2, len(WORDINGS))
    return {"verbatim_edits": len(edits), "facts": NUM_FACTS, "wordings": found}


def questions(edits: Sequence[Titled], facts: Sequence[Any], data: Path) -> list[Asked]:
    """What is asked: of verbatim edits, beside them, of facts, and of nothing that is edited."""
    found = []
    for place, edit in enumerate(edits):
        language = "spanish" if edit.examples[0].startswith("¿") else "english"
        found += [Asked(one, f"asked, {language}", place) for one in edit.asked]
        found += [Asked(one, f"examples, {language}", place) for one in edit.examples]
        found += [Asked(edit.near[0], "near: another text", None), Asked(edit.near[1], "near: the topic", None)]
    own = [query.prompt for fact in facts for query in fact.queries if query.type in ("rewrite", "rephrase")]
    found += [Asked(prompt, "facts", None) for prompt in own]
    return found + [Asked(one.prompt, "unrelated", None) for one in unrelated(data, 1)]


def by_kind(asked: Sequence[Asked], leads: Sequence[int | None]) -> dict[str, Any]:
    """Share found of what shall lead, share led of what shall not."""
    kinds: dict[str, list[bool]] = {}
    for one, lead in zip(asked, leads, strict=True):
        right = lead is not None if one.edit is None else lead == one.edit
        kinds.setdefault(one.kind, []).append(right)
        if one.edit is not None:
            kinds.setdefault("another verbatim edit", []).append(lead is not None and lead != one.edit)
    return {kind: shown(values) for kind, values in kinds.items()}


class Bench:
    """Facts and questions with their features, made once."""

    def __init__(self, folder: Path, facts: Sequence[str], prompts: Sequence[str]) -> None:
        served = resolve("default", None)
        self.adapter = EditAdapter.load(served.adapter_dir)
        self.tokenizer = AutoTokenizer.from_pretrained(served.base_dir)
        model = AutoModelForCausalLM.from_pretrained(served.base_dir, dtype=torch.bfloat16)
        shape = replace(self.adapter.shape, layers=(max(self.adapter.shape.feature_layers),))
        self.base = FrozenBase(Decoder(model.eval().requires_grad_(False)), self.adapter.template, shape)
        self.cache = FeatureCache(folder, (base_fingerprint(served.base_dir), shape.feature_layers), 1 << 40)
        self.facts = self._captured("facts", facts)
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        made = [self.tokenizer.apply_chat_template(c, add_generation_prompt=True, return_dict=False) for c in chats]
        ids: list[list[int]] = [list(each) for each in made]  # type: ignore[arg-type]
        asked = self.cache.capture("questions", ids, lambda part: self.base.questions([ids[i] for i in part]), say)
        self.questions = [self.adapter.standardise(asked[i]) for i in range(len(ids))]

    def picked(self, texts: Sequence[str]) -> list[list[int]]:
        """The verbatim edits among the picks of each question that one leads; they come after the facts."""
        features = [*self.facts, *self._captured("verbatim", texts)]
        table = route_keys(self.adapter, features)
        found = []
        for question in self.questions:
            picks = choose(self.adapter.picking, question, table, features.__getitem__, lambda row: row)
            places = [row - len(self.facts) for row in picks.edits]
            found.append([place for place in places if place >= 0] if places and places[0] >= 0 else [])
        return found

    def _captured(self, stage: str, texts: Sequence[str]) -> list[torch.Tensor]:
        """Features as a gist keeps them, in 8 bits."""
        most = self.adapter.max_edit_tokens
        ids = [self.tokenizer.encode(text, add_special_tokens=False)[:most] for text in texts]
        found = self.cache.capture(stage, ids, lambda part: self.base.edits([ids[i] for i in part]).features, say)
        return [Packed.of(self.adapter.standardise(found[i])).unpack() for i in range(len(ids))]


def route_keys(adapter: EditAdapter, features: Sequence[torch.Tensor]) -> RouteKeys:
    """Route keys of edits as an engine holds them."""
    rows, owners = [], []
    for number, own in enumerate(features):
        keys = adapter.router.route_keys(own)
        count = -(-len(keys) // ROW_TOKENS)
        rows.append(torch.cat([keys, keys[-1:].expand(count * ROW_TOKENS - len(keys), -1)]))
        owners += [number] * count
    return RouteKeys(torch.cat(rows).unflatten(0, (-1, ROW_TOKENS)), torch.tensor(owners), len(features))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
