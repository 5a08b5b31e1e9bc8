"""What new layers on top of a frozen edit-capable model learn: the next token, from what the model below makes of it.

loss = CE(next token)      facts in the prompt, or edits in a pool that the frozen part selects from as it is served

Gists, their keys and what tokens pick come from the frozen part alone, so they stay what they were to the last bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, fields

import torch
from torch import nn

from incomes_plugin.errors import InvalidValue
from incomes_plugin.gist.types import Gist
from incomes_plugin.model.hf import EditableModel, ReferencePool
from incomes_plugin.training import attention
from incomes_plugin.training.data.batches import Batch
from incomes_plugin.training.growth import check_widths
from incomes_plugin.training.losses import Spoken


@dataclass(frozen=True)
class ReadingLosses:
    """Scalars of one batch; `total` carries the gradient.

    Attributes:
        answer, answer_accuracy: of answers; in a batch with edits, of those that an edit gives.
        edits: the batch had edits.
    """

    total: torch.Tensor
    answer: float
    text: float
    answer_accuracy: float
    edits: bool

    def curves(self) -> dict[str, float]:
        """Columns of the curves."""
        return {f.name: float(getattr(self, f.name)) for f in fields(self) if f.name != "total"}

    def describe(self) -> str:
        """A few words for the progress line."""
        return f"loss {self.answer:.2f} {'edits' if self.edits else 'prompt'} {100 * self.answer_accuracy:.0f}%"


class ReadingTrainer(nn.Module):
    """The new layers, and a norm of their own, around a model that is no part of the module.

    Args:
        base: edit-capable Llama-family model; it never changes, but loses its last norm to the new layers.
        num_layers: new decoder layers; at the start they are identities.
        crowd: edits of the pool.
    """

    def __init__(self, base: EditableModel, num_layers: int, crowd: int) -> None:
        super().__init__()
        model = base.model
        model.set_attn_implementation(attention.register())
        config = deepcopy(model.config)
        config.num_hidden_layers = num_layers
        self.top = type(model.model)(config)
        self.top.embed_tokens = None
        for layer in self.top.layers:
            nn.init.zeros_(layer.self_attn.o_proj.weight)
            nn.init.zeros_(layer.mlp.down_proj.weight)
        self.top.norm.load_state_dict(model.model.norm.state_dict())
        model.model.norm = nn.Identity()
        model.eval().requires_grad_(False)
        self._base = (base,)  # in a tuple, so that it is no submodule
        self._crowd: deque[Gist] = deque(maxlen=crowd)

    @torch.no_grad()
    def take_over(self, reader: EditableModel) -> None:
        """Start from the highest layers and the last norm of a model that reads its prompt instead of from identities.

        Raises:
            InvalidValue: other widths, or too few layers above its gist layers.
        """
        model, wanted = reader.model.model, len(self.top.layers)
        if len(model.layers) - 1 - reader.adapter.shape.layers[-1] < wanted:
            raise InvalidValue(f"the model has fewer than {wanted} layers above its gist layers", param="grow_from")
        check_widths(self.top.config, reader.model.config)
        for layer, trained in zip(self.top.layers, model.layers[-wanted:], strict=True):
            layer.load_state_dict(trained.state_dict())
        self.top.norm.load_state_dict(model.norm.state_dict())

    def forward(self, batch: Batch) -> ReadingLosses:
        """Losses of one batch, with edits or without."""
        base = self._base[0]
        base.model.to(batch.ids.device)  # type: ignore[arg-type]
        with torch.no_grad():
            pool = self._pool(batch)
            with base.reading(pool):
                below = base.model.model(input_ids=batch.ids).last_hidden_state
        hidden = self.top(inputs_embeds=below).last_hidden_state
        spoken = Spoken.of(base.model.lm_head, hidden, batch)
        judged = spoken.weight == 1 if pool is None else spoken.from_pool
        return ReadingLosses(
            total=spoken.answer + spoken.text,
            answer=float(spoken.ce[judged].mean().detach()),
            text=float(spoken.text.detach()),
            answer_accuracy=float(spoken.hits[judged].float().mean()),
            edits=pool is not None,
        )

    def _pool(self, batch: Batch) -> ReferencePool | None:
        """The edits of the batch behind those of earlier ones, which are older."""
        if not len(batch.edit_key):
            return None
        self._crowd.extend(self._base[0].capture_all(list(self._texts(batch))))
        return ReferencePool.of(list(self._crowd))

    def _texts(self, batch: Batch) -> Iterator[list[int]]:
        """Token ids of the edit texts: what stands before the gist tokens, without BOS."""
        first = int(self._base[0].adapter.bos_token_id is not None)
        for ids, gists in zip(batch.edit_ids, batch.gist_mask, strict=True):
            yield ids[first : int(gists.int().argmax())].tolist()
