"""Fit the router to the crowd it will meet, when a model is finished and its keep rule is fitted.

in: an edit-capable model, thousands of edits of the training part; out: another router and its gate in the adapter.

Training shows a token some thousand entries of other edits, most of them stale; served, it meets tens of thousands, all
of them fresh. Gists do not change any more, so here all of them are in one pool, and the token's side alone is fitted:

    direction = gain * A_q q + B gelu(C q + c)                      `selection/routing.py`
    loss      = CE(right edit or zero-gist among: zero-gist, entries of the right edit, the token's hardest others,
                   random others that stand for all)

    python -m incomes_plugin.training.crowd MODEL [--data DIR] [--edits N] [--steps S]
"""

from __future__ import annotations

import argparse
import math
import random
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel, ReferencePool
from incomes_plugin.selection.routing import Router
from incomes_plugin.training.calibration import calibrate
from incomes_plugin.training.data import corpus
from incomes_plugin.training.data.conversation import ZERO, Conversations, Mix, PoolEdit, Row
from incomes_plugin.training.data.corpus import EditRecord
from incomes_plugin.training.data.facts import FactSource
from incomes_plugin.training.data.vocabulary import Vocabulary
from incomes_plugin.training.data.wording import request

EDITS, ROWS, STEPS = 14_000, 24_000, 2_400
"""Invented edits of the crowd, conversations about them, and steps of the fit."""

_PUBLISHED = 1_500
"""Published edits of each source."""

_AGAIN = 0.5
"""Share of the tokens wanting a published edit that count twice: there are more ways to ask about those."""

_SEED = 124
_SLICE = 64
"""Edits that a group of conversations is about; the refusals among them are near misses of these."""

_MIX = Mix(unknown=0.3, in_context=0.0, smalltalk=0.08, text=0.05, repeat=0.0, passage=0.12)
_LONGEST_ROW = 56

_SENTENCES, _NEIGHBOURS, _REQUESTS = 14_000, 4_000, 3_000
"""Requests which no edit answers: sentences of running text, prompts about neighbours of published edits, invented
ones. More neighbours make the gate refuse questions about published edits (`docs/experiments.md`)."""

_SILENT = 4
"""Positions of a row that read nothing, beside those of refusals."""

_HIDDEN, _BATCH, _RATE, _DECAY = 512, 1024, 1e-3, 0.01
_HARD, _RANDOM, _SEARCHES = 64, 1_500, 2
"""Hardest others of a token, random others of a batch, and how often the hardest are looked for."""


@dataclass(frozen=True)
class Crowd:
    """One pool and the tokens that choose from it.

    Attributes:
        keys: `[n, R]`, of all entries at the first gist layer.
        owners: `[n]` int64, edit of each entry, ascending.
        queries: `[S, H, D]` float16, un-rotated.
        wanted: `[S]` int64, the edit that each token should pick; -1 = none.
    """

    keys: torch.Tensor
    owners: torch.Tensor
    queries: torch.Tensor
    wanted: torch.Tensor


def fit_router(
    folder: Path, data: Path | None = None, *, edits: int = EDITS, rows: int = ROWS, steps: int = STEPS
) -> Router:
    """Write a router fitted among `edits` invented and some published edits, and its gate, into the adapter.

    Args:
        data: folder with published edits and running text.
    """
    editable, tokenizer = EditableModel.load(folder), AutoTokenizer.from_pretrained(folder)
    assert editable.adapter.router is not None
    records = corpus.edits(data, limit=_PUBLISHED) if data else []
    crowd = gather(
        editable, tokenizer, records, corpus.texts(data, limit=6_000) if data else [], edits=edits, rows=rows
    )
    router = fit(crowd, editable.adapter.router, steps=steps)
    replace(editable.adapter, router=router).save(folder)
    return calibrate(folder, tokenizer, records)


def gather(
    editable: EditableModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[EditRecord],
    texts: list[str],
    *,
    edits: int = EDITS,
    rows: int = ROWS,
) -> Crowd:
    """Capture the edits, run conversations about all of them, and take in requests that no edit has to do with."""
    words = Vocabulary(tokenizer)
    pool = _edits(words, records, edits, editable.adapter)
    gists = [gist for part in _parts(pool, _SLICE) for gist in editable.capture_all([edit.ids for edit in part])]
    routes = ReferencePool.of(gists).routes
    conversations = Conversations(words, FactSource(_SEED + 1, held_out=False), texts, [], _MIX, seed=_SEED)
    each = max(1, rows * _SLICE // len(pool))
    found = []
    for place, part in enumerate(_parts(pool, _SLICE)):
        for size in [_SLICE] * (each // _SLICE) + [each % _SLICE] * (each % _SLICE > 0):
            said = [conversations.row(part, _LONGEST_ROW) for _ in range(size)]
            found += list(_tokens(editable, said, part, place * _SLICE))
    found += list(_of_nothing(editable, words, _unrelated(records, texts)))
    queries, wanted = (torch.cat(parts) for parts in zip(*found, strict=True))
    published = torch.tensor([edit.fact is None for edit in pool])
    again = ((wanted >= 0) & published[wanted.clamp_min(0)] & (torch.rand(len(wanted)) < _AGAIN)).nonzero()[:, 0]
    places = torch.cat([torch.arange(len(wanted)), again])
    return Crowd(routes.keys, routes.owners, queries[places], wanted[places])


def _edits(words: Vocabulary, records: Sequence[EditRecord], count: int, adapter: EditAdapter) -> list[PoolEdit]:
    """Invented and published edits in an order that mixes them, with entries numbered inside each slice."""
    facts = FactSource(_SEED, held_out=False).distinct(count)
    pool = [PoolEdit(words.encode(f.statement), f, (), f.answer) for f in facts]
    pool += [
        PoolEdit(words.encode(r.statement), None, r.prompts, r.answer, r.others, text=r.statement) for r in records
    ]
    pool = [edit for edit in pool if len(edit.ids) <= adapter.max_edit_tokens]
    random.Random(_SEED).shuffle(pool)
    numbered, entries = [], 0
    for place, edit in enumerate(pool):
        entries = 0 if place % _SLICE == 0 else entries
        size = adapter.num_gists(len(edit.ids))
        numbered.append(replace(edit, first_entry=entries, num_entries=size))
        entries += size
    return numbered


def _parts(pool: list[PoolEdit], size: int) -> Iterator[list[PoolEdit]]:
    yield from (pool[first : first + size] for first in range(0, len(pool), size))


def _tokens(
    editable: EditableModel, rows: list[Row], part: list[PoolEdit], first: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Queries of the supervised tokens of some rows, and the edits they want; `first` is the number of `part[0]`."""
    starts = torch.tensor([edit.first_entry for edit in part])
    for queries, row in zip(editable.queries(_padded([row.ids for row in rows])), rows, strict=True):
        target, weight = torch.tensor(row.target), torch.tensor(row.weight)
        answers, refusals = target >= 0, (target == ZERO) & (weight == 1)
        others = ((target == ZERO) & (weight < 1)).nonzero()[:, 0]
        others = others[torch.randperm(len(others))[:_SILENT]]
        places = torch.cat([answers.nonzero()[:, 0], refusals.nonzero()[:, 0], others])
        wanted = torch.full((len(places),), -1)
        count = int(answers.sum())
        wanted[:count] = first + torch.searchsorted(starts, target[answers], right=True) - 1
        yield queries[places].half(), wanted


def _unrelated(records: Sequence[EditRecord], texts: list[str]) -> list[str]:
    """Requests of many kinds: invented ones, sentences of running text or their beginnings, neighbours of edits."""
    rng = random.Random(_SEED)
    sentences = [part for text in texts for part in re.split(r"(?<=[.!?])\s+", text) if 12 < len(part) < 140]
    sentences = rng.sample(sentences, min(len(sentences), _SENTENCES))
    beginnings = [sentence[: rng.randint(8, 60)] for sentence in sentences[: len(sentences) // 5]]
    neighbours = [prompt for record in records for prompt in record.others]
    neighbours = rng.sample(neighbours, min(len(neighbours), _NEIGHBOURS))
    invented = [request(rng) for _ in range(_REQUESTS)]
    return sorted(sentences + beginnings + neighbours + invented, key=len)


def _of_nothing(
    editable: EditableModel, words: Vocabulary, messages: list[str]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Queries of requests' last tokens, where the answer begins, and of one other token of each; they want no edit."""
    rng = random.Random(_SEED)
    for first in range(0, len(messages), _SLICE):
        rows = [
            [*words.begin, *words.first_open, *words.encode(message), *words.close]
            for message in messages[first : first + _SLICE]
        ]
        for queries, row in zip(editable.queries(_padded(rows)), rows, strict=True):
            yield queries[[len(row) - 1, rng.randrange(len(row))]].half(), torch.tensor([-1, -1])


def _padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """`[B, T]`, zeros on the right."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for line, row in zip(ids, rows, strict=True):
        line[: len(row)] = torch.tensor(row)
    return ids


class _Side(nn.Module):
    """The token's side of a router, trainable; at the start the router as it is."""

    def __init__(self, router: Router, queries: torch.Tensor) -> None:
        super().__init__()
        inner, width = router.query.shape
        self.query = nn.Parameter(router.query.detach() * router.gain)
        self.zero, self.bias = nn.Parameter(router.zero.detach().clone()), nn.Parameter(router.bias.detach().clone())
        spread = 1 / math.sqrt(inner) / float(queries[:_BATCH].float().std())
        fresh = spread * torch.randn(inner, _HIDDEN), torch.zeros(_HIDDEN), torch.zeros(_HIDDEN, width)
        parts = router.hidden, router.hidden_bias, router.correction
        hidden, offset, correction = (
            new if old is None else old.detach().clone() for old, new in zip(parts, fresh, strict=True)
        )
        self.hidden, self.hidden_bias = nn.Parameter(hidden), nn.Parameter(offset)
        self.correction = nn.Parameter(correction)

    def router(self, like: Router) -> Router:
        """A router with these tensors and the fixed rules of `like`."""
        own = {name: parameter for name, parameter in self.named_parameters()}
        return replace(like, gain=torch.ones(()), **own)  # type: ignore[arg-type]


def fit(crowd: Crowd, router: Router, *, steps: int = STEPS) -> Router:
    """The router with its token's side fitted to the crowd."""
    torch.manual_seed(_SEED)
    side = _Side(router, crowd.queries)
    optimizer = torch.optim.AdamW(side.parameters(), lr=_RATE, betas=(0.9, 0.98), weight_decay=_DECAY)
    own = _own(crowd.owners)
    searched_at = {steps * i // _SEARCHES for i in range(_SEARCHES)}
    hardest = torch.empty(0, dtype=torch.long)
    for step in range(steps):
        if step in searched_at:
            hardest = _hardest(side.router(router), crowd)
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, (step + 1) / 100) * (0.51 + 0.49 * math.cos(math.pi * step / steps))
        chosen = torch.randint(len(crowd.wanted), (_BATCH,))
        loss = _loss(side.router(router), crowd, own, chosen, hardest[chosen])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(side.parameters(), 1.0)
        optimizer.step()
    return side.router(router).detached()


def _own(owners: torch.Tensor) -> torch.Tensor:
    """Entries `[N, Gmax]` of each edit, padded with -1."""
    sizes = owners.bincount()
    place = torch.arange(int(sizes.max()))
    first = sizes.cumsum(0) - sizes
    return torch.where(place < sizes[:, None], first[:, None] + place, -1)


def _loss(router: Router, crowd: Crowd, own: torch.Tensor, chosen: torch.Tensor, hardest: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the right choice of the tokens `chosen` `[B]`, whose hardest entries are `[B, C]`."""
    wanted = crowd.wanted[chosen]
    directions = router.directions(crowd.queries[chosen])
    zero = router.zero_logits(directions, 0)
    hard = torch.einsum("br,bcr->bc", directions, crowd.keys[hardest])
    hard = hard.masked_fill(crowd.owners[hardest] == wanted[:, None], -torch.inf).logsumexp(dim=1)
    drawn = torch.randint(len(crowd.keys), (_RANDOM,))
    some = (directions @ crowd.keys[drawn].T).masked_fill(crowd.owners[drawn] == wanted[:, None], -torch.inf)
    others = torch.logaddexp(hard, some.logsumexp(dim=1) + math.log(len(crowd.keys) / _RANDOM))
    entries = own[wanted.clamp_min(0)]
    right = torch.einsum("br,bgr->bg", directions, crowd.keys[entries.clamp_min(0)])
    right = right.masked_fill((entries < 0) | (wanted < 0)[:, None], -1e9).logsumexp(dim=1)
    everything = torch.stack([zero, others, right]).logsumexp(dim=0)
    return (everything - torch.where(wanted >= 0, right, zero)).mean()


@torch.no_grad()
def _hardest(router: Router, crowd: Crowd) -> torch.Tensor:
    """Places `[S, C]` of the best entries of every token."""
    keys = crowd.keys.bfloat16()
    parts = (router.directions(queries).bfloat16() @ keys.T for queries in crowd.queries.split(_BATCH))
    return torch.cat([part.topk(min(_HARD, len(keys))).indices for part in parts])


def main(argv: Sequence[str]) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m incomes_plugin.training.crowd", description=__doc__)
    parser.add_argument("model", type=Path, help="folder of an edit-capable model; its adapter is rewritten")
    parser.add_argument("--data", type=Path, help="folder with edits/ and text/")
    parser.add_argument("--edits", type=int, default=EDITS, help="invented edits of the crowd")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    fit_router(args.model, args.data, edits=args.edits, steps=args.steps)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
