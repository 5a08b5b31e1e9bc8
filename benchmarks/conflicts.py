"""`python -m benchmarks.conflicts --out FILE`: how well conflicts of new edits with those of a set are found.

All edits of the dev split's groups are one edit set. Then every other text of the groups comes as a new edit, alone:
is the edit that it contradicts or repeats found, and is a mere neighbour taken for a conflict? Routing and judge are
the engine's own, on the gists' own 8 bits. `incomes adapt` fits the judge, to the train split alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.routing import say
from benchmarks.stats import summary
from incomes_plugin.gist.fingerprint import base_fingerprint
from incomes_plugin.gist.types import Packed
from incomes_plugin.lab.adapt.cache import FeatureCache
from incomes_plugin.lab.adapt.conflict_groups import ConflictGroup, groups
from incomes_plugin.lab.adapt.features import FrozenBase
from incomes_plugin.lab.adapt.judging import IN_CONFLICT, GroupedEdits
from incomes_plugin.lab.evaluation.metrics import Share
from incomes_plugin.lab.provenance import provenance
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.decoder import Decoder
from incomes_plugin.model.resolve import resolve
from incomes_plugin.selection.conflicts import CANDIDATES, Judge, judge
from incomes_plugin.selection.edit_pairs import NUMBERS


def main(argv: list[str]) -> int:
    """Measure, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conflicts", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "conflicts.json")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the published sets")
    parser.add_argument("--cache", type=Path, required=True, help="folder of captured features, 18 KB a text")
    parser.add_argument("--groups", type=int, default=300, help="scale: records of a set")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    result: dict[str, Any] = provenance(f"python -m benchmarks.conflicts {' '.join(argv)}".strip())
    adapter = served_adapter()
    members = groups("dev", args.data, args.groups)
    result |= measured(captured("dev", members, args.cache, adapter), adapter.judge)
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(json.dumps(result["found"], indent=1) + "\n")
    return 0


def served_adapter() -> EditAdapter:
    """The default base's."""
    return EditAdapter.load(resolve("default", None).adapter_dir)


@torch.inference_mode()
def captured(stage: str, members: Sequence[ConflictGroup], folder: Path, adapter: EditAdapter) -> GroupedEdits:
    """The edit set of these groups; features are kept in a folder."""
    served = resolve("default", None)
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
    return GroupedEdits(members, packed, adapter.router, adapter.verifier)


@torch.inference_mode()
def measured(edits: GroupedEdits, net: Judge) -> dict[str, Any]:
    """Shares with intervals, by kind and data set."""
    hits: dict[tuple[str, str], list[bool]] = defaultdict(list)
    kinds: dict[str, list[bool]] = defaultdict(list)
    routed: list[bool] = []
    clock: list[float] = []
    for number, new in enumerate(edits.newcomers()):
        start = time.perf_counter()
        (rows,) = edits.candidates([new])
        verdicts = judge(net, edits.router, edits.verifier, edits.features[new.text], edits.features_of(rows))
        clock.append(1000 * (time.perf_counter() - start))
        found = {row: verdict for row, verdict in zip(rows, verdicts, strict=True) if verdict is not None}
        source = edits.groups[new.group].source
        if new.kind in IN_CONFLICT:
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
        "net": net.hidden.shape[0],
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
        "recall": {kind: shown(by_kind[kind]) for kind in IN_CONFLICT},
        "false_alarms": {"all": shown(mere)} | {kind: shown(by_kind[kind]) for kind in ("neighbours", "others")},
        "by_set": {f"{kind} of {source}": shown(values) for (kind, source), values in sorted(hits.items())},
    }


def shown(values: Sequence[bool]) -> dict[str, float]:
    """A share with its 95 % interval."""
    share = Share.of(list(values))
    return {"share": round(share.value, 4), "low": share.ci_low, "high": share.ci_high, "n": share.n}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
