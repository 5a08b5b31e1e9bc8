"""Dense search among edit texts by the model's own states: mean of the input embeddings, cosine.

Of all layers and both poolings (mean over tokens, last token) this was the best on the default model: right edit first
of 1,000 for 50 % of 300 questions about invented facts of the training part, among the first five for 67 %. The last
token's state after the second of four layers had 35 % and 55 %, the best of any layer above the embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel


class Dense:
    """Normalised states of texts.

    Args:
        model, tokenizer: what turns a text into states.
        texts: what is searched.
        layer: 0 = input embeddings, l = output of the l-th decoder layer.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any, texts: Sequence[str], *, layer: int = 0) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._layer = layer
        self._states = torch.stack([self._state(text) for text in texts])  # [N, d]

    def best(self, query: str, count: int) -> list[int]:
        """Places of `count` texts, best first."""
        similarity = self._states @ self._state(query)
        return similarity.topk(min(count, len(similarity))).indices.tolist()

    @torch.inference_mode()
    def _state(self, text: str) -> torch.Tensor:
        """Unit vector `[d]` float32."""
        ids = torch.tensor([self._tokenizer(text, add_special_tokens=False)["input_ids"]])
        if self._layer == 0:
            states = self._model.get_input_embeddings()(ids)
        else:
            states = self._model(input_ids=ids, output_hidden_states=True).hidden_states[self._layer]
        return F.normalize(states[0].float().mean(dim=0), dim=-1)
