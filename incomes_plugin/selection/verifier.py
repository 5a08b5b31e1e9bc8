"""Verification: does a candidate edit answer the question? A small transformer over both their tokens decides.

    logit = out(encoder([CLS; question tokens; edit tokens])[CLS])

Each token enters with its features, its side, its place, and the largest of each of its likenesses to the other side's
tokens. Attention between a question's token and an edit's also sees how alike the two are:

- the router's cosine, and the cosine of the features of each feature layer;
- whether they are the same token: features of the first feature layer, which sees little but the token itself, say so;
- how long the run of same tokens is that the two stand in, and of the run that breaks off in front of or behind them:
  a name is one such run, and another name breaks it.

It runs once a request for the few candidates, so its cost does not depend on N.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from incomes_plugin.selection.likeness import RUN_KINDS, cosines_by_part, in_loops, liken
from incomes_plugin.selection.routing import EDIT_TOKENS, QUESTION_TOKENS, Router


class Verifier(nn.Module):
    """Trained tensors of verification; see the module docstring.

    Args:
        feature_dim: F.
        num_parts: feature layers P; F is P parts of the same width.
        width, heads, layers: of the transformer.

    Attributes:
        num_parts: P.
        config: width, heads and layers, as the adapter file keeps them.
    """

    def __init__(self, feature_dim: int, num_parts: int, width: int = 96, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.config = {"width": width, "heads": heads, "layers": layers}
        self.num_parts = num_parts
        kinds = 1 + num_parts + RUN_KINDS
        self.enter = nn.Linear(feature_dim, width)
        self.side = nn.Parameter(torch.zeros(2, width))
        self.known = nn.Linear(kinds + 1, width)
        self.seen = nn.Linear(kinds, width)
        self.question_place = nn.Embedding(QUESTION_TOKENS, width)
        self.edit_place = nn.Embedding(EDIT_TOKENS, width)
        self.start = nn.Parameter(torch.randn(width) * 0.1)
        self.blocks = nn.ModuleList(_Block(width, heads, kinds) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, 1)

    def forward(
        self,
        question: torch.Tensor,
        weights: torch.Tensor,
        question_mask: torch.Tensor,
        edit: torch.Tensor,
        edit_mask: torch.Tensor,
        cosines: torch.Tensor,
    ) -> torch.Tensor:
        """Logits `[B]` of B pairs of question and edit.

        Args:
            question: `[B, T, F]` features, T <= QUESTION_TOKENS; its last token stands last (padding in front). `[1, T,
                F]` is one question for all pairs; `weights` and `question_mask` likewise.
            weights: `[B, T]`, w of the router.
            question_mask: `[B, T]`, True for real tokens.
            edit: `[B, E, F]` features, E <= EDIT_TOKENS, padding behind.
            edit_mask: `[B, E]`.
            cosines: `[B, T, E]`, the router's, of every pair of tokens.
        """
        num_pairs, num_question, num_edit = len(edit), question.shape[1], edit.shape[1]
        present = question_mask[:, :, None] & edit_mask[:, None]
        likeness = liken(cosines, cosines_by_part(question, edit, self.num_parts), present)
        known = torch.cat([likeness.known, weights.expand(num_pairs, -1)[..., None]], -1)
        places = torch.arange(num_question - 1, -1, -1, device=question.device)
        left = self.enter(question) + self.side[0] + self.known(known) + self.question_place(places)
        right = self.enter(edit) + self.side[1] + self.seen(likeness.seen)
        right = right + self.edit_place(torch.arange(num_edit, device=edit.device))
        hidden = torch.cat([self.start.expand(num_pairs, 1, -1), left, right], 1)
        real = F.pad(torch.cat([question_mask.expand(num_pairs, -1), edit_mask], 1), (1, 0), value=True)
        *others, last = self.blocks
        assert isinstance(last, _Block)
        for block in others:
            hidden = block(hidden, likeness.alike, real)
        return self.leave(self.norm(last.of_first(hidden, real)))[:, 0]


class _Block(nn.Module):
    """One layer of the transformer: attention, with a term in its logits for how alike two tokens are, then a
    feed-forward net.

    Args:
        kinds: similarities of a pair of tokens.
    """

    def __init__(self, width: int, heads: int, kinds: int) -> None:
        super().__init__()
        self._heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.to_edit, self.to_question = nn.Linear(kinds, heads), nn.Linear(kinds, heads)
        self.net = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.drop = nn.Dropout(0.1)

    def forward(self, hidden: torch.Tensor, alike: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Hidden states `[B, 1 + T + E, width]`.

        Args:
            alike: `[B, T, E, kinds]`.
            present: `[B, 1 + T + E]`, True for real tokens.
        """
        query, key, value = self._heads_of(self.project(self.before(hidden)))
        bias = self._bias(alike, present)
        return self._goes_on(hidden, F.scaled_dot_product_attention(query, key, value, attn_mask=bias))

    def _bias(self, alike: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """The term in the logits of attention, `[B, heads, 1 + T + E, 1 + T + E]`."""
        size, first = present.shape[1], 1 + alike.shape[1]
        shape = len(alike), self._heads, size, size
        if in_loops(alike):
            from incomes_plugin.selection import pair_loops

            weight = torch.cat([self.to_edit.weight, self.to_question.weight])
            terms = F.linear(alike, weight, torch.cat([self.to_edit.bias, self.to_question.bias]))
            bias = alike.new_empty(shape)
            pair_loops.lay_out(terms.numpy(), present.numpy(), bias.numpy())
            return bias
        bias = alike.new_zeros(shape)
        bias[:, :, 1:first, first:] = self.to_edit(alike).permute(0, 3, 1, 2)
        bias[:, :, first:, 1:first] = self.to_question(alike).permute(0, 3, 2, 1)
        return bias.masked_fill(~present[:, None, None], -torch.inf)

    def of_first(self, hidden: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """The first hidden state alone, `[B, width]`: all that is used of the last block. The first token is on neither
        side, so likenesses have no part in it.

        Args:
            hidden, present: as in `forward`.
        """
        normed, width = self.before(hidden), hidden.shape[-1]
        query = F.linear(normed[:, :1], self.project.weight[:width], self.project.bias[:width])
        both = F.linear(normed, self.project.weight[width:], self.project.bias[width:])
        (query,), (key, value) = self._heads_of(query), self._heads_of(both)
        taken = F.scaled_dot_product_attention(query, key, value, attn_mask=present[:, None, None])
        return self._goes_on(hidden[:, :1], taken)[:, 0]

    def _heads_of(self, projected: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Some of queries, keys and values, side by side `[B, N, parts * width]`, as `[B, heads, N, head]` each."""
        width = self.merge.in_features
        parts = projected.unflatten(-1, (projected.shape[-1] // width, self._heads, -1))
        return parts.permute(2, 0, 3, 1, 4).unbind()

    def _goes_on(self, hidden: torch.Tensor, taken: torch.Tensor) -> torch.Tensor:
        hidden = hidden + self.drop(self.merge(taken.transpose(1, 2).flatten(2)))
        return hidden + self.drop(self.net(self.between(hidden)))


def verify(
    router: Router, verifier: Verifier, question: torch.Tensor, weights: torch.Tensor, directions: torch.Tensor,
    edits: Sequence[torch.Tensor],
) -> torch.Tensor:  # fmt: skip
    """The verifier's logits `[C]` for C candidate edits of one question.

    Args:
        question: `[T, F]` float32.
        weights, directions: `[T]` and `[T, R]` of the question's tokens, the router's.
        edits: features `[E, F]` of each.
    """
    sizes = [len(edit) for edit in edits]
    joined = torch.cat([edit.to(question) for edit in edits])
    cosines = directions @ router.route_keys(joined).T
    cut = [most_alike(*one) for one in zip(joined.split(sizes), cosines.split(sizes, 1), strict=True)]
    widths = torch.tensor([len(edit) for edit, _ in cut], device=question.device)
    mask = torch.arange(int(widths.max()), device=question.device) < widths[:, None]
    features = pad_sequence([edit for edit, _ in cut], batch_first=True)
    alike = pad_sequence([cosine.T for _, cosine in cut], batch_first=True, padding_value=-1.0).transpose(1, 2)
    real = torch.ones(1, len(question), dtype=torch.bool, device=question.device)
    return verifier(question[None], weights[None], real, features, mask, alike).float()


def most_alike(edit: torch.Tensor, cosines: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The EDIT_TOKENS tokens of an edit that are most like the question's, in their order, and their cosines.

    Args:
        edit: `[E, F]`.
        cosines: `[T, E]`, the router's, with the question's tokens.
    """
    if len(edit) <= EDIT_TOKENS:
        return edit, cosines
    kept = cosines.amax(0).topk(EDIT_TOKENS).indices.sort().values
    return edit[kept], cosines[:, kept]
