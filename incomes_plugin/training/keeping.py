"""Fit the rule that says which gists of an edit are stored, when a model is finished.

in: an edit-capable model, invented facts of the training part and, where there are, published edits; out: the
`KeepRule` in its adapter. Labels: the gists of an answer's tokens and of the token after it are read, no others are.

    python -m incomes_plugin.training.keeping MODEL [--data DIR] [--margin M] [--budget G]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from incomes_plugin.model.hf import EditableModel
from incomes_plugin.selection.keeping import KeepRule
from incomes_plugin.training.data.corpus import EditRecord, edits
from incomes_plugin.training.data.facts import Fact, FactSource

FACTS, RECORDS = 1500, 150
"""Invented facts, and published edits of each source."""

KEPT = 0.999
"""Share of the gists that are read, of invented facts, which the rule keeps."""

MARGIN = 2.0
"""How far the score may fall short of that: half a gist more an edit, and no question of 120 lost in place of one."""

_SEED = 124
_RIDGE = 1e-4


def narrow(
    folder: Path, data: Path | None = None, *, facts: int = FACTS, margin: float = MARGIN, budget: int | None = None
) -> KeepRule:
    """Write the rule into the adapter in `folder` and return it.

    Args:
        data: folder with published edits.
        facts: invented facts.
        budget: most gists an edit keeps.
    """
    editable, tokenizer = EditableModel.load(folder), AutoTokenizer.from_pretrained(folder)
    rule = fit(editable, tokenizer, edits(data, limit=RECORDS) if data else [], facts=facts)
    rule = replace(rule, bias=rule.bias + margin, budget=budget)
    replace(editable.adapter, keep=rule).save(folder)
    return rule


def fit(
    editable: EditableModel, tokenizer: PreTrainedTokenizerBase, records: Sequence[EditRecord], *, facts: int = FACTS
) -> KeepRule:
    """The rule for a model, without margin: its threshold keeps `KEPT` of what is read."""
    full = EditableModel(editable.model, replace(editable.adapter, keep=None))
    invented = FactSource(_SEED, held_out=False).distinct(facts)
    keys, read = _labelled(full, tokenizer, [(f.statement, f.answer, answer_start(f)) for f in invented])
    published = _labelled(full, tokenizer, [(r.statement, r.answer, r.statement.rfind(r.answer)) for r in records])
    weight, bias = _separate(*(torch.cat(pair) for pair in zip((keys, read), published, strict=True)))
    scores = keys[read] @ weight + bias  # of invented facts only: where the answer stands in published ones is guessed
    return KeepRule(weight, bias - scores.quantile(1 - KEPT))


def answer_places(
    tokenizer: PreTrainedTokenizerBase, statement: str, answer: str, start: int
) -> tuple[list[int], range]:
    """Token ids of an edit text, and the places of those that hold the answer, which begins at character `start`."""
    encoded = tokenizer(statement, add_special_tokens=False, return_offsets_mapping=True)
    stop = start + len(answer)
    inside = [i for i, (first, end) in enumerate(encoded["offset_mapping"]) if first < stop and end > start]  # type: ignore[arg-type]
    return list(encoded["input_ids"]), range(inside[0], inside[-1] + 1)  # type: ignore[arg-type]


def answer_start(fact: Fact) -> int:
    """Where the answer begins in the statement, by the wording that it was made from."""
    for wording in fact.relation.statements:
        if wording.format(s=fact.subject, o=fact.answer).lower() == fact.statement.lower():
            return len(wording.split("{o}")[0].format(s=fact.subject))
    raise ValueError(f"no wording of {fact.relation.name} makes this statement")


def _labelled(
    editable: EditableModel, tokenizer: PreTrainedTokenizerBase, said: Sequence[tuple[str, str, int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys `[n, K * D]` of all gists of the edits that theirs cover whole, and `[n]` whether they are read."""
    shape = editable.adapter.shape
    keys, read = [torch.empty(0, shape.num_kv_heads * shape.head_dim)], [torch.empty(0, dtype=torch.bool)]
    for statement, answer, start in said:
        ids, places = answer_places(tokenizer, statement, answer, start)
        if len(ids) <= editable.adapter.num_gists(len(ids)):
            keys.append(editable.capture(ids).keys[0].flatten(1).float())
            place = len(ids) - 1 - torch.arange(len(ids))  # gist k stands for the token k from the end
            read.append((place >= places.start) & (place <= places.stop))
    return torch.cat(keys), torch.cat(read)


def _separate(keys: torch.Tensor, read: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logistic regression with a small ridge on standardised keys; w and b for the keys as they are."""
    mean, spread = keys.mean(0), keys.std(0) + 1e-6
    inputs, labels = (keys - mean) / spread, read.float()
    weight, bias = torch.zeros(keys.shape[1], requires_grad=True), torch.zeros((), requires_grad=True)
    search = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        search.zero_grad()
        wrong = torch.nn.functional.binary_cross_entropy_with_logits(inputs @ weight + bias, labels)
        total = wrong + _RIDGE * weight.square().sum()
        total.backward()
        return total

    search.step(loss)  # type: ignore[no-untyped-call]
    scaled = weight.detach() / spread
    return scaled, bias.detach() - mean @ scaled


def main(argv: list[str]) -> int:
    """Fit and write the rule into the adapter of a model folder."""
    parser = argparse.ArgumentParser(prog="python -m incomes_plugin.training.keeping", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, help="data folder with published edits")
    parser.add_argument("--facts", type=int, default=FACTS, help="invented facts")
    parser.add_argument("--margin", type=float, default=MARGIN, help="of the score; more keeps more")
    parser.add_argument("--budget", type=int, help="most gists an edit keeps")
    args = parser.parse_args(argv)
    narrow(args.model, args.data, facts=args.facts, margin=args.margin, budget=args.budget)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
