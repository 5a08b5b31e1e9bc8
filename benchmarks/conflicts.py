"""`python -m benchmarks.conflicts --out FILE`: how well conflicts of new edits with those of a set are found.

All edits of the dev split's groups are one edit set. Then every other text of the groups comes as a new edit, alone:
is the edit that it contradicts or repeats found, and is a mere neighbour taken for a conflict? Routing and judge are
the engine's own, on the gists' own 8 bits. `--fit` fits the judge's net and its threshold to the train split instead;
nothing of dev is seen then.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.conflict_sets import Group, groups
from benchmarks.judge_fit import Pair, fitted
from benchmarks.routing import say
from benchmarks.stats import summary
from incomes_plugin.gist.fingerprint import base_fingerprint
from incomes_plugin.gist.types import Packed
from incomes_plugin.lab.adapt.cache import FeatureCache
from incomes_plugin.lab.adapt.features import FrozenBase
from incomes_plugin.lab.evaluation.metrics import Share
from incomes_plugin.lab.provenance import provenance
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.decoder import Decoder
from incomes_plugin.model.resolve import resolve
from incomes_plugin.pool.table import ROW_TOKENS
from incomes_plugin.selection.conflicts import CANDIDATES, Judge, Sought, judge, nearest, numbers_of
from incomes_plugin.selection.edit_pairs import NUMBERS
from incomes_plugin.selection.routing import RouteKeys

RIGHT = ("contradictions", "reworded", "duplicates")
"""Kinds of new edits that are in conflict with their group's edit."""
FALSE_ALARMS = 0.01
"""Share on which the threshold is fitted: half of what is allowed, because other data and larger sets have more."""


@dataclass(frozen=True)
class New:
    """A new edit: its text, of which kind it is, and the group that it belongs to."""

    text: str
    kind: str
    group: int


class EditSet:
    """The edits of groups as an engine holds them, and the features of all texts."""

    def __init__(self, members: Sequence[Group], adapter: EditAdapter, features: dict[str, torch.Tensor]) -> None:
        self.groups = members
        self.adapter = adapter
        self.features = features
        router = adapter.router
        rows, owners = [], []
        for number, group in enumerate(members):
            keys = router.route_keys(features[group.edit])
            count = -(-len(keys) // ROW_TOKENS)
            rows.append(torch.cat([keys, keys[-1:].expand(count * ROW_TOKENS - len(keys), -1)]))
            owners += [number] * count
        self.keys = RouteKeys(torch.cat(rows).unflatten(0, (-1, ROW_TOKENS)), torch.tensor(owners), len(members))

    def new(self) -> Iterator[New]:
        """Every text that comes as a new edit; those of the set too, each beside all others."""
        for number, group in enumerate(self.groups):
            yield New(group.edit, "others", number)
            for kind in (*RIGHT, "neighbours"):
                for text in getattr(group, kind):
                    if text != group.edit:
                        yield New(text, kind, number)

    def candidates(self, new: New) -> list[int]:
        """Edits that routing names for it, without itself."""
        sought = Sought.of(self.adapter.router, self.features[new.text])
        (found,) = nearest([sought], self.keys, CANDIDATES + 1)
        return [row for row in found if self.groups[row].edit != new.text][:CANDIDATES]


def main(argv: list[str]) -> int:
    """Fit if asked, measure, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conflicts", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "conflicts.json")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the published sets")
    parser.add_argument("--cache", type=Path, required=True, help="folder of captured features, 18 KB a text")
    parser.add_argument("--groups", type=int, default=300, help="scale: records of a set")
    parser.add_argument("--fit", type=Path, help="fit the judge to the train split and write its net here, then stop")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.fit is not None:
        net, report = fitted(list(pairs(edit_set("train", args))), FALSE_ALARMS)
        args.fit.write_text(net)
        sys.stdout.write(json.dumps(report, indent=1) + "\n")
        return 0
    result: dict[str, Any] = provenance(f"python -m benchmarks.conflicts {' '.join(argv)}".strip())
    result |= measured(edit_set("dev", args))
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(json.dumps(result["found"], indent=1) + "\n")
    return 0


def edit_set(split: str, args: argparse.Namespace) -> EditSet:
    """Groups and captured features of a split."""
    return captured(split, groups(split, args.data, args.groups), args.cache)


@torch.inference_mode()
def captured(stage: str, members: Sequence[Group], folder: Path) -> EditSet:
    """The edit set of these groups; features are kept in a folder."""
    served = resolve("default", None)
    adapter = EditAdapter.load(served.adapter_dir)
    tokenizer = AutoTokenizer.from_pretrained(served.base_dir)
    model = AutoModelForCausalLM.from_pretrained(served.base_dir, dtype=torch.bfloat16)
    shape = replace(adapter.shape, layers=(max(adapter.shape.feature_layers),))  # no layer above is computed
    base = FrozenBase(Decoder(model.eval().requires_grad_(False)), adapter.template, shape)
    texts = list(dict.fromkeys(text for group in members for text in group.texts))
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    identity = (base_fingerprint(served.base_dir), shape.feature_layers, adapter.template)
    cache = FeatureCache(folder, identity, 1 << 40)
    found = cache.capture(stage, ids, lambda part: base.edits([ids[i] for i in part]).features, say)
    packed = {text: Packed.of(adapter.standardise(found[i])).unpack() for i, text in enumerate(texts)}
    return EditSet(members, adapter, packed)


@torch.inference_mode()
def pairs(edits: EditSet) -> Iterator[Pair]:
    """Every new edit beside every candidate that the judge looks at closely."""
    router, verifier = edits.adapter.router, edits.adapter.verifier
    for number, new in enumerate(edits.new()):
        rows = edits.candidates(new)
        places, numbers = numbers_of(
            router, verifier, edits.features[new.text], [edits.features[edits.groups[row].edit] for row in rows]
        )
        for place, row in zip(places, numbers.tolist(), strict=True):
            meant = new.kind in RIGHT and rows[place] == new.group
            yield Pair(number, new.group, new.kind, edits.groups[new.group].source, tuple(row), meant)
        if not places:
            yield Pair(number, new.group, new.kind, edits.groups[new.group].source, (), meant=False)
        if number % 1000 == 0:
            say("pairs of new edit", number, sum(len(group.texts) for group in edits.groups))


@torch.inference_mode()
def measured(edits: EditSet) -> dict[str, Any]:
    """Shares with intervals, by kind and data set."""
    hits: dict[tuple[str, str], list[bool]] = defaultdict(list)
    kinds: dict[str, list[bool]] = defaultdict(list)
    routed: list[bool] = []
    clock: list[float] = []
    router, verifier = edits.adapter.router, edits.adapter.verifier
    for number, new in enumerate(edits.new()):
        start = time.perf_counter()
        rows = edits.candidates(new)
        others = [edits.features[edits.groups[row].edit] for row in rows]
        verdicts = judge(router, verifier, edits.features[new.text], others)
        clock.append(1000 * (time.perf_counter() - start))
        found = {row: verdict for row, verdict in zip(rows, verdicts, strict=True) if verdict is not None}
        source = edits.groups[new.group].source
        if new.kind in RIGHT:
            routed.append(new.group in rows)
            hits[new.kind, source].append(new.group in found)
            if new.group in found:
                kinds[new.kind].append((found[new.group][0] == "duplicate") == (new.kind == "duplicates"))
        else:
            hits[new.kind, source].append(bool(found))
        if number % 1000 == 0:
            say("new edit", number, sum(len(group.texts) for group in edits.groups))
    return {
        "edits": len(edits.groups),
        "new_edits": len(clock),
        "candidates": CANDIDATES,
        "numbers": NUMBERS,
        "net": Judge.packaged().hidden.shape[0],
        "found": table(hits),
        "kind_right": {kind: shown(values) for kind, values in kinds.items()},
        "among_candidates": shown(routed),
        "ms": summary(clock),
    }


def table(hits: dict[tuple[str, str], list[bool]]) -> dict[str, Any]:
    """Recall by kind, false alarms of what conflicts with nothing, and both by data set."""
    by_kind: dict[str, list[bool]] = defaultdict(list)
    for (kind, _), values in hits.items():
        by_kind[kind] += values
    mere = by_kind["neighbours"] + by_kind["others"]
    return {
        "recall": {kind: shown(by_kind[kind]) for kind in RIGHT},
        "false_alarms": {"all": shown(mere)} | {kind: shown(by_kind[kind]) for kind in ("neighbours", "others")},
        "by_set": {f"{kind} of {source}": shown(values) for (kind, source), values in sorted(hits.items())},
    }


def shown(values: Sequence[bool]) -> dict[str, float]:
    """A share with its 95 % interval."""
    share = Share.of(list(values))
    return {"share": round(share.value, 4), "low": share.ci_low, "high": share.ci_high, "n": share.n}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
