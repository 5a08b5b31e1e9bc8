"""A one-layer transformer of arXiv 2412.06538 (section 5): frozen random embeddings, attention, then an MLP or none.

    attention  o = sum_h O_h V_h sum_t softmax_t(x_t' K_h Q_h' x_T / sqrt(d_h)) x_t        no residual around it
    MLP        y = o + W_2 relu(W_1 o + b)
    logits     y . u_a                                                                     for each answer a

The last token is always the same, so a token's attention score can be looked up in a table. The result is the same,
only cheaper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from incomes_plugin.lab.facts.capacity.task import Task


@dataclass(frozen=True)
class Size:
    """Width d, heads H, head dimension d_h, hidden units m (0 = no MLP)."""

    width: int
    heads: int
    head_dim: int
    hidden: int

    @property
    def attention_parameters(self) -> int:
        """4 H d_h d."""
        return 4 * self.heads * self.head_dim * self.width

    @property
    def value_parameters(self) -> int:
        """H d_h d: what attention can hold facts in."""
        return self.heads * self.head_dim * self.width

    @property
    def mlp_parameters(self) -> int:
        """2 m d, and m biases."""
        return (2 * self.width + 1) * self.hidden


class OneLayer(nn.Module):
    """The model.

    Args:
        task: its vocabularies.
        size: its parameters.
        seed: of embeddings and initial weights.
    """

    embeddings: torch.Tensor
    codes: torch.Tensor

    def __init__(self, task: Task, size: Size, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int, scale: float) -> torch.Tensor:
            return scale * torch.randn(*shape, generator=generator)

        width, heads, dim = size.width, size.heads, size.head_dim
        self.register_buffer("embeddings", normal(task.tokens, width, scale=width**-0.5))
        self.register_buffer("codes", normal(task.answers, width, scale=width**-0.5))
        self.key = nn.Parameter(normal(heads, width, dim, scale=width**-0.5))
        self.query = nn.Parameter(normal(heads, width, dim, scale=width**-0.5))
        self.value = nn.Parameter(normal(heads, width, dim, scale=width**-0.5))
        self.output = nn.Parameter(normal(heads, dim, width, scale=(heads * dim) ** -0.5))
        self.inner = nn.Parameter(normal(size.hidden, width, scale=width**-0.5))
        self.bias = nn.Parameter(torch.zeros(size.hidden))
        self.outer = nn.Parameter(normal(size.hidden, width, scale=max(1, size.hidden) ** -0.5))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits `[B, R D]` of sequences `[B, T]`."""
        table = self._scores()
        weights = table[tokens].softmax(dim=1)  # [B, T, H]
        spread = weights.new_zeros(len(tokens), len(table), weights.shape[-1])
        spread = spread.scatter_add(1, tokens[..., None].expand_as(weights), weights)
        seen = torch.einsum("bvh,vd->bhd", spread, self.embeddings)
        attended = torch.einsum("bhd,hdk,hke->be", seen, self.value, self.output)
        hidden = (attended @ self.inner.T + self.bias).relu()
        return (attended + hidden @ self.outer) @ self.codes.T

    def _scores(self) -> torch.Tensor:
        """Attention scores `[tokens, H]` of all tokens for the last one."""
        asked = torch.einsum("d,hdk->hk", self.embeddings[-1], self.query)
        return torch.einsum("vd,hdk,hk->vh", self.embeddings, self.key, asked) * self.key.shape[-1] ** -0.5


def trained(
    task: Task, size: Size, *, steps: int, learning_rate: float, batch: int, goal: float, seed: int
) -> tuple[OneLayer, float]:
    """Cross-entropy by Adam with a falling rate until `goal` of the facts are recalled: the model and its recall."""
    generator = torch.Generator().manual_seed(seed + 1)
    model = OneLayer(task, size, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=learning_rate / 50)
    for step in range(steps):
        facts = torch.randperm(task.facts, generator=generator)[:batch]
        tokens, answers = task.ask(facts, generator)
        logits = model(tokens)
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, answers).backward()
        optimizer.step()
        schedule.step()
        if step % _LOOK == _LOOK - 1 and float((logits.argmax(dim=-1) == answers).float().mean()) >= goal:
            found = recall(model, task, generator)
            if found >= goal:
                return model, found
    return model, recall(model, task, generator)


_LOOK = 50
"""Steps between two looks at whether the facts are learned."""

_TIMES = 4


@torch.no_grad()
def recall(model: OneLayer, task: Task, generator: torch.Generator) -> float:
    """Share of all facts, each asked four times in fresh noise, whose answer comes first among all answers."""
    hits = []
    for _ in range(_TIMES):
        tokens, answers = task.ask(torch.arange(task.facts), generator)
        hits.append((model(tokens).argmax(dim=-1) == answers).float().mean())
    return float(torch.stack(hits).mean())
