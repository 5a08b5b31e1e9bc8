"""InComeS as its authors describe and release it (arXiv 2505.22156), in our harness: what our corrections start from.

    one gist per edit; key before, value without rotary embedding, no maps; layers of the upper half
    query after rotary embedding at its absolute position
    o = softmax([q . k_0, q . k_1 ... q . k_N] / (sqrt(D) * t)) . [0, v_1 ... v_N]
    t = 0.45 if the softmax has more than ten entries with the zero-gist, else 1

It needs a model trained that way; its `edit_adapter.json` says so by `"selection": "paper"`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from incomes_plugin.errors import GistFormatError, InvalidValue
from incomes_plugin.evaluation.interface import Answer, EditText, EvalSettings, Generator, Question, messages
from incomes_plugin.evaluation.rivals.plain_model import decode, load_plain, require_hf
from incomes_plugin.model.adapter import CONFIG_FILE, EditAdapter
from incomes_plugin.model.rotary import rotate
from incomes_plugin.model.taps import GistTaps
from incomes_plugin.selection.reference import select

SELECTION = "paper"
TEMPERATURE = 0.45
COLD_FROM = 10
"""Edits in the pool from which the temperature applies."""


class PaperModel:
    """Checkpoint and adapter of a model trained by the paper's recipe."""

    def __init__(self, model_dir: Path) -> None:
        self.adapter = _paper_adapter(model_dir)
        self.model = load_plain(model_dir)
        self._taps = GistTaps(self.model, self.adapter.shape.layers, self.adapter.shape.head_dim)
        self._keys: list[torch.Tensor] = []  # of each gist layer [N, K, D]
        self._values: list[torch.Tensor] = []
        self._position = 0
        self._weights: list[torch.Tensor] = []  # of the token that predicts, [H, N], one for each read

    @torch.inference_mode()
    def fill(self, texts: Sequence[Sequence[int]]) -> None:
        """Make these edit texts the pool."""
        self._taps.reader = None
        keys, values = [], []
        for text in texts:
            self.model(input_ids=torch.tensor([self.adapter.capture_ids(list(text))]))
            keys.append([k[0, -1] for k in self._taps.keys])
            values.append([v[0, -1] for v in self._taps.values])
        self._keys = [torch.stack(layer) for layer in zip(*keys, strict=True)]
        self._values = [torch.stack(layer) for layer in zip(*values, strict=True)]

    def answer(self, prompt: Sequence[int], *, max_tokens: int, stop_id: int) -> tuple[list[int], torch.Tensor]:
        """Greedy answer whose every token, the prompt's too, may read the pool.

        Returns:
            Its tokens, and the weight `[N]` of each edit: mean over gist layers, heads and predicting tokens.
        """
        self._taps.reader = self._read if self._keys else None
        self._weights = []
        tokens = decode(self.model, prompt, max_tokens=max_tokens, stop_id=stop_id, before_step=self._start)
        return tokens, torch.cat(self._weights).mean(dim=0) if self._weights else torch.empty(0)

    def _start(self, position: int) -> None:
        self._position = position

    def _read(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        """Addition `[1, T, H, D]` for un-rotated queries `[1, T, H, D]`."""
        keys, values = self._keys[layer], self._values[layer]
        scale = 1 / TEMPERATURE if len(keys) >= COLD_FROM else 1.0
        rotated = rotate(self.model, query, self._position)[0]
        addition, weights = select(rotated, self.adapter.zero_keys[layer], keys, values, scale)
        self._weights.append(weights[-1, :, 1:])
        return addition[None]


def _paper_adapter(model_dir: Path) -> EditAdapter:
    config = model_dir / CONFIG_FILE
    if not config.is_file() or json.loads(config.read_text()).get("selection") != SELECTION:
        raise InvalidValue(
            f'{model_dir} was not trained by the paper\'s recipe ({CONFIG_FILE} lacks "selection": "{SELECTION}"); '
            "name such a model with --model",
            param="model",
        )
    adapter = EditAdapter.load(model_dir)
    if adapter.shape.max_gists != 1 or (adapter.query_map, adapter.key_map, adapter.value_map) != (None, None, None):
        raise GistFormatError(f"{config}: the paper's recipe has one gist per edit and no maps; train it again")
    return adapter


class Paper:
    """Every edit as one gist in one pool; a text that is too long is cut."""

    name = "paper"

    def __init__(self, generator: Generator, settings: EvalSettings) -> None:
        self._generator = generator
        self._settings = settings
        self._model = PaperModel(generator.model_dir)
        self._edits: Sequence[EditText] = ()

    def prepare(self, edits: Sequence[EditText]) -> None:
        """Capture all edits."""
        self._edits = edits
        longest = self._model.adapter.max_edit_tokens
        ids = [self._generator.tokenizer(edit.text, add_special_tokens=False)["input_ids"] for edit in edits]
        self._model.fill([text[:longest] for text in ids])

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Ask with the whole pool active."""
        return [self._one(self._generator.chat_ids(messages(question))) for question in questions]

    def _one(self, prompt: list[int]) -> Answer:
        tokenizer = self._generator.tokenizer
        stop_id, max_tokens = int(tokenizer.eos_token_id), self._settings.max_answer_tokens
        tokens, weights = self._model.answer(prompt, max_tokens=max_tokens, stop_id=stop_id)
        text = str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()
        if not self._edits:
            return Answer(text, tuple(tokens), None, 0.0, len(prompt))
        best = int(weights.argmax())
        return Answer(text, tuple(tokens), self._edits[best].index, float(weights[best]), len(prompt))


def paper(generator: Generator, settings: EvalSettings) -> Paper:
    """Method `paper`. Raises UnsupportedEngine, InvalidValue (the model is not the paper's)."""
    require_hf(generator, "paper")
    return Paper(generator, settings)
