"""The paper's losses. The teacher is a frozen copy of the base; the student reads the pool instead of the edit.

    w_t = beta * ReLU(log p_T(y_t | edit, x, y_<t) - log p_T(y_t | x, y_<t))
    L   = sum_t w_t CE_S(y_t | pool, x, y_<t) / #{t : w_t != 0}             over answer tokens
        + mean_t KL(p_T(. | edit, x, y_<t) || p_S(. | pool, x, y_<t))       over all text tokens

Selection itself is not supervised. It is dense and soft, in every layer of the upper half, over the zero-gist and one
gist per edit, with queries after the rotary embedding and keys before it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.rotary import rotate
from incomes_plugin.model.taps import GistTaps
from incomes_plugin.selection.reference import select
from incomes_plugin.training import attention
from incomes_plugin.training.paper.batches import Chunk


@dataclass(frozen=True)
class PaperLosses:
    """Scalars of one chunk; `total` carries the gradient."""

    total: torch.Tensor
    weighted: float
    divergence: float
    gain: float
    answer_accuracy: float
    teacher_accuracy: float

    def curves(self) -> dict[str, float]:
        """Columns of the curves."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "total"}

    def describe(self) -> str:
        """A few words for the progress line."""
        return (
            f"ce {self.weighted:.2f} kl {self.divergence:.2f} answer {100 * self.answer_accuracy:.0f}% "
            f"(teacher {100 * self.teacher_accuracy:.0f}%)"
        )


class PaperTrainer(nn.Module):
    """Student with its zero-gist keys; the teacher is no part of the module and never trained.

    Args:
        model: a Llama-family causal LM, all of whose weights are trained.
        teacher: frozen copy of what it started from.
        adapter: gist layers and the gist token.
        beta: factor of the weights.
    """

    def __init__(self, model: PreTrainedModel, teacher: PreTrainedModel, adapter: EditAdapter, beta: float) -> None:
        super().__init__()
        for language_model in (model, teacher):
            language_model.set_attn_implementation(attention.register())
        self.model = model
        self.adapter = adapter
        self.zero_keys = nn.Parameter(torch.randn_like(adapter.zero_keys))
        self._teacher = (teacher.eval().requires_grad_(False),)  # in a tuple, so that it is no submodule
        self._beta = beta
        self._taps = GistTaps(model, adapter.shape.layers, adapter.shape.head_dim)

    def forward(self, chunk: Chunk) -> PaperLosses:
        """Losses of one chunk."""
        hidden = self._student(chunk)
        rows, columns = chunk.text.nonzero(as_tuple=True)
        labels = chunk.plain[rows, columns + 1]
        student = self.model.lm_head(hidden[rows, columns]).float().log_softmax(dim=-1)
        teacher, plain = self._teachers(chunk, rows, columns, labels)
        divergence = F.kl_div(student, teacher, log_target=True, reduction="batchmean")
        asked = chunk.answer[rows, columns]
        told = teacher.gather(1, labels[:, None])[:, 0]
        weight = self._beta * F.relu(told - plain)[asked]
        cross_entropy = F.nll_loss(student[asked], labels[asked], reduction="none")
        weighted = (weight * cross_entropy).sum() / (weight != 0).sum().clamp_min(1)
        return PaperLosses(
            total=weighted + divergence,
            weighted=float(weighted.detach()),
            divergence=float(divergence.detach()),
            gain=float((told - plain)[asked].mean()),
            answer_accuracy=_accuracy(student[asked], labels[asked]),
            teacher_accuracy=_accuracy(teacher[asked], labels[asked]),
        )

    def _student(self, chunk: Chunk) -> torch.Tensor:
        """Hidden states `[P, T, E]` of the questions, read against the chunk's own pool, with gradients to both."""
        self._taps.reader = None
        self.model.model(input_ids=chunk.edit_ids)
        rows = torch.arange(len(chunk.gist_at), device=chunk.gist_at.device)
        keys, values = ([t[rows, chunk.gist_at] for t in kept] for kept in (self._taps.keys, self._taps.values))

        def read(layer: int, query: torch.Tensor) -> torch.Tensor:
            rotated = rotate(self.model, query)
            zero_key = self.zero_keys[layer].to(query.dtype)
            return select(rotated.flatten(0, 1), zero_key, keys[layer], values[layer], 1.0)[0].view_as(query)

        self._taps.reader = read
        hidden = self.model.model(input_ids=chunk.plain).last_hidden_state
        self._taps.reader = None
        return hidden

    @torch.no_grad()
    def _teachers(
        self, chunk: Chunk, rows: torch.Tensor, columns: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """log p_T(. | edit, x) `[n, V]` at the text positions, and log p_T(label | x) `[n]`."""
        teacher = self._teacher[0].to(chunk.plain.device)
        informed = teacher.model(input_ids=chunk.informed).last_hidden_state[rows, columns + chunk.shift[rows]]
        plain = teacher.model(input_ids=chunk.plain).last_hidden_state[rows, columns]
        told = teacher.lm_head(informed).float().log_softmax(dim=-1)
        untold = teacher.lm_head(plain).float().log_softmax(dim=-1)
        return told, untold.gather(1, labels[:, None])[:, 0]


def _accuracy(log_probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    return float((log_probabilities.argmax(dim=-1) == labels).float().mean())
