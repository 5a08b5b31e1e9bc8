"""Verification: does a candidate edit answer the question? A small transformer over both their tokens decides.

    logit = out(encoder([CLS; question tokens; edit tokens])[CLS])

Each token enters with its features, its side, its place, and its best similarity to the other side: the router's cosine
and the plain one of the features. It runs once a request for the few candidates, so its cost does not depend on N.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from incomes_plugin.selection.routing import EDIT_TOKENS, QUESTION_TOKENS

_SIMILARITIES = 3
"""Numbers a token knows of the other side: router's cosine, features' cosine, and its weight w (questions only)."""


class Verifier(nn.Module):
    """Trained tensors of verification; see the module docstring.

    Args:
        feature_dim: F.
        width, heads, layers: of the transformer.

    Attributes:
        config: width, heads and layers, as the adapter file keeps them.
    """

    def __init__(self, feature_dim: int, width: int = 96, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.config = {"width": width, "heads": heads, "layers": layers}
        self.enter = nn.Linear(feature_dim, width)
        self.side = nn.Parameter(torch.zeros(2, width))
        self.similarity = nn.Linear(_SIMILARITIES, width)
        self.question_place = nn.Embedding(QUESTION_TOKENS, width)
        self.edit_place = nn.Embedding(EDIT_TOKENS, width)
        self.start = nn.Parameter(torch.randn(width) * 0.1)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, 0.1, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
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
            question: `[B, T, F]` features, T <= QUESTION_TOKENS; its last token stands last (padding in front).
            weights: `[B, T]`, w of the router.
            question_mask: `[B, T]`, True for real tokens.
            edit: `[B, E, F]` features, E <= EDIT_TOKENS, padding behind.
            edit_mask: `[B, E]`.
            cosines: `[B, T, E]`, the router's, of every pair of tokens.
        """
        num_question, num_edit = question.shape[1], edit.shape[1]
        plain = torch.einsum("btf,bef->bte", F.normalize(question, dim=-1), F.normalize(edit, dim=-1))
        pair = question_mask[:, :, None] & edit_mask[:, None]
        both = torch.stack([cosines.masked_fill(~pair, -1.0), plain.masked_fill(~pair, -1.0)], -1)
        known = torch.stack([*both.amax(2).unbind(-1), weights], -1)
        seen = torch.cat([both.amax(1), torch.zeros_like(both[:, 0, :, :1])], -1)
        places = torch.arange(num_question - 1, -1, -1, device=question.device)
        left = self.enter(question) + self.side[0] + self.similarity(known) + self.question_place(places)
        right = self.enter(edit) + self.side[1] + self.similarity(seen)
        right = right + self.edit_place(torch.arange(num_edit, device=edit.device))
        start = self.start.expand(len(question), 1, -1)
        absent = ~torch.cat([torch.ones_like(question_mask[:, :1]), question_mask, edit_mask], 1)
        hidden = self.encoder(torch.cat([start, left, right], 1), src_key_padding_mask=absent)
        return self.leave(hidden[:, 0])[:, 0]
