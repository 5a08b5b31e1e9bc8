"""The frozen model that texts are crammed into: one pass over many texts at once, behind the template of `frame.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, PreTrainedModel

from incomes_plugin.lab.verbatim.frame import RecallFrame, VectorOrigin
from incomes_plugin.model.decoder import Decoder

ROWS_AT_ONCE = 512
"""Positions whose logits are in memory at the same time."""


@dataclass(frozen=True)
class CramInput:
    """One text in a batch: vectors `[K, hidden]`, and the tokens that have to follow, the end token last."""

    vectors: torch.Tensor
    ids: Sequence[int]


@dataclass(frozen=True)
class TokenScores:
    """Of each token of one text, `[N + 1]` float32.

    Attributes:
        loss: cross-entropy in nats.
        margin: logit of the token minus the largest other logit.
    """

    loss: torch.Tensor
    margin: torch.Tensor

    @property
    def hits(self) -> torch.Tensor:
        """`[N + 1]` bool: the token is the argmax."""
        return self.margin > 0


class FrozenModel:
    """A causal LM whose weights never change.

    Args:
        folder: a checkpoint.
        dtype: that serving computes in; None: the checkpoint's own.

    Raises:
        UnsupportedEngine: another shape of decoder, or a tokenizer without an end token.
    """

    def __init__(self, folder: Path, dtype: torch.dtype | None = None, device: str = "cpu") -> None:
        self.folder = folder
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype or "auto")
        self.model = model.eval().requires_grad_(False).to(device)  # type: ignore[arg-type]
        self.decoder = Decoder(self.model)
        self.dtype, self.device = self.model.dtype, torch.device(device)
        self.frame = RecallFrame.of(folder, self.dtype)
        self.tokenizer, self.template, self.end_id = self.frame.tokenizer, self.frame.template, self.frame.end_id

    @property
    def hidden_size(self) -> int:
        """Numbers of one vector."""
        return self.decoder.hidden_size

    @property
    def vocab_size(self) -> int:
        """|V|, rows of the output matrix."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    @property
    def max_positions(self) -> int:
        """Longest context."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values of one position in all layers."""
        heads = self.decoder.num_kv_heads * self.decoder.head_dim
        return 2 * self.decoder.num_layers * heads * self.dtype.itemsize

    @property
    def origin(self) -> VectorOrigin:
        """What vectors made with this model are valid for."""
        return self.frame.origin

    @cached_property
    def embedding_std(self) -> float:
        """Spread of the input embeddings: the size of a random start."""
        return float(self.model.get_input_embeddings().weight.float().std())

    def embed(self, ids: Sequence[int]) -> torch.Tensor:
        """Input embeddings `[T, hidden]` in the model's dtype."""
        return self.decoder.embed(torch.tensor(list(ids), dtype=torch.long, device=self.device))

    def prompt(self, vectors: torch.Tensor) -> torch.Tensor:
        """`[template + K, hidden]` in the model's dtype: what recall is asked with."""
        return torch.cat([self.embed(self.template), vectors.to(self.device, self.dtype)])

    def surprisal(self, ids: Sequence[int]) -> torch.Tensor:
        """Nats of each token `[N + 1]` and of the end token, after the template alone."""
        return self.scores([CramInput(torch.empty(0, self.hidden_size), [*ids, self.end_id])])[0].loss

    @torch.no_grad()
    def scores(self, batch: Sequence[CramInput]) -> list[TokenScores]:
        """Teacher-forced scores of every text."""
        return self._pass(batch, None)

    def scores_and_gradients(self, batch: Sequence[CramInput], weights: Sequence[torch.Tensor]) -> list[TokenScores]:
        """The same, and adds the gradient of the summed weighted losses to what the vectors were made of.

        Args:
            weights: `[N + 1]` of every text. Losses are summed, so that texts do not act upon each other.
        """
        return self._pass(batch, weights)

    def _pass(self, batch: Sequence[CramInput], weights: Sequence[torch.Tensor] | None) -> list[TokenScores]:
        rows = [torch.cat([self.prompt(row.vectors), self.embed(row.ids[:-1])]) for row in batch]
        hidden = self.decoder.run(pad_sequence(rows, batch_first=True), 0, self.decoder.num_layers)
        # The token at place i is predicted one position before it; padding stands behind and is never looked at.
        first = [len(row) - len(one.ids) for row, one in zip(rows, batch, strict=True)]
        wanted = torch.cat([h[at : at + len(one.ids)] for h, at, one in zip(hidden, first, batch, strict=True)])
        targets = torch.tensor([i for one in batch for i in one.ids], device=self.device)
        leaf = wanted.detach().requires_grad_(weights is not None)
        flat = None if weights is None else torch.cat(list(weights)).to(self.device)
        loss, margin = self._head(leaf, targets, flat)
        if weights is not None:
            wanted.backward(leaf.grad)
        lengths = [len(one.ids) for one in batch]
        return [TokenScores(*pair) for pair in zip(loss.split(lengths), margin.split(lengths), strict=True)]

    def _head(
        self, hidden: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and margin `[rows]` on the CPU; with weights also the gradient of `hidden`, a part of the rows at a
        time so that the logits of all are never there together."""
        losses, margins = [], []
        for start in range(0, len(hidden), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            logits = self.decoder.logits(hidden[part]).float()
            loss = F.cross_entropy(logits, targets[part], reduction="none")
            if weights is not None:
                (loss * weights[part]).sum().backward()
            with torch.no_grad():
                own = logits.gather(1, targets[part, None])[:, 0]  # the gradient is done: logits may change
                other = logits.detach().scatter_(1, targets[part, None], -torch.inf).amax(1)
                margins.append((own - other).detach().cpu())
            losses.append(loss.detach().cpu())
        return torch.cat(losses), torch.cat(margins)
