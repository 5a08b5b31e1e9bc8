"""Donors for the transplant benchmark: small Llamas with a published tokenizer, trained from scratch on running text.

Tied embeddings, sampled softmax: the whole vocabulary keeps its rows, and rows of tokens that never occur are zero, as
decay leaves them. A run is resumed from its state in the working folder. Called by `transplant.py`.
"""

from __future__ import annotations

import json
import random
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from benchmarks.schedule import Schedule
from incomes_plugin.lab.data.facts import FactSource
from incomes_plugin.lab.data.prompts import passages

TOKENIZERS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "gpt2": (
        {"gpt2_vocab.json": "vocab.json", "gpt2_merges.txt": "merges.txt"},
        {"tokenizer_class": "GPT2Tokenizer"},
    ),
    "llama2": ({"tokenizer.model": "tokenizer.model"}, {"tokenizer_class": "LlamaTokenizer"}),
}
"""Files in the archive by their names in a model folder, and the tokenizer's configuration."""
ROW_TOKENS, ROWS = 64, 32
NEGATIVES = 1000
SHARE_OF_FACTS = 0.25
"""Of the lines; they stand for the domain of the base, which a large donor would know."""
SAVE_EVERY = 200


@dataclass(frozen=True)
class DonorRecipe:
    """One donor."""

    tokenizer: str
    seed: int
    width: int = 128
    layers: int = 1
    steps: int = 3000
    learning_rate: float = 3e-3


def unpack_tokenizers(archive: Path, into: Path) -> dict[str, Path]:
    """A folder for each tokenizer."""
    folders = {}
    with tarfile.open(archive) as files:
        places = {Path(name).name: name for name in files.getnames()}
        for tokenizer, (names, config) in TOKENIZERS.items():
            folder = folders[tokenizer] = into / tokenizer
            folder.mkdir(parents=True, exist_ok=True)
            for source, target in names.items():
                content = files.extractfile(places[source])
                assert content is not None
                (folder / target).write_bytes(content.read())
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folders


def train_donor(recipe: DonorRecipe, tokenizer_folder: Path, data: Path, out: Path) -> Path:
    """The donor's folder; a finished one is left as it is, a stopped one goes on."""
    if (out / "model.safetensors").is_file():
        return out
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    run = _Run(recipe, len(tokenizer), _stream(recipe, tokenizer, data, out))
    run.train(out / "state.pt")
    tokenizer.save_pretrained(out)
    run.model.save_pretrained(out)
    return out


def _stream(recipe: DonorRecipe, tokenizer: Any, data: Path, out: Path) -> torch.Tensor:
    """Token ids of the lines in this donor's order, as many as it needs."""
    path = out / "ids.pt"
    if path.is_file():
        stored: torch.Tensor = torch.load(path)
        return stored
    wanted = recipe.steps * ROWS * ROW_TOKENS + ROWS
    found: list[int] = []
    for chunk in _chunks(_lines(recipe.seed, data), 2000):
        for ids in tokenizer(chunk, add_special_tokens=False)["input_ids"]:
            found += [*ids, tokenizer.eos_token_id]
        if len(found) >= wanted:
            break
    ids = torch.tensor(found[:wanted], dtype=torch.int32)
    torch.save(ids, path)
    return ids


def _lines(seed: int, data: Path) -> Iterator[str]:
    """Paragraphs and invented facts of the training part, shuffled, as often as wanted."""
    paragraphs, rng = list(_paragraphs(data)), random.Random(seed)
    facts = FactSource(seed, held_out=False)
    while True:
        rng.shuffle(paragraphs)
        for paragraph in paragraphs:
            yield paragraph
            if rng.random() < 4 * SHARE_OF_FACTS:  # a paragraph is about as long as four facts
                fact = facts.fact()
                yield f"{fact.statement} {fact.question} {fact.answer}"


@cache
def _paragraphs(data: Path) -> tuple[str, ...]:
    return tuple(passages(data, 80_000, seed=0))


def _chunks(lines: Iterator[str], size: int) -> Iterator[list[str]]:
    while True:
        yield [next(lines) for _ in range(size)]


class _Run:
    """A donor in training."""

    def __init__(self, recipe: DonorRecipe, vocabulary: int, ids: torch.Tensor) -> None:
        torch.manual_seed(recipe.seed)
        self._recipe = recipe
        self._ids = ids
        self.model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocabulary, hidden_size=recipe.width, intermediate_size=2 * recipe.width,
                num_hidden_layers=recipe.layers, num_attention_heads=2, tie_word_embeddings=True,
                max_position_embeddings=512,
            )
        )  # fmt: skip
        counts = torch.bincount(ids.long(), minlength=vocabulary).double()
        self._share = counts.pow(0.75) / counts.pow(0.75).sum()
        if recipe.steps:  # an untrained donor keeps its random rows
            with torch.no_grad():
                self._weight[counts == 0] = 0
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True
        )
        self._schedule = Schedule(recipe.steps, recipe.learning_rate, warmup_steps=50)
        self._step = 0

    @property
    def _weight(self) -> torch.Tensor:
        weight = self.model.get_input_embeddings().weight
        assert isinstance(weight, torch.Tensor)
        return weight

    def train(self, state: Path) -> None:
        """All steps, from the state if there is one."""
        if state.is_file():
            self._load(state)
        while self._step < self._recipe.steps:
            self._train_step()
            if self._step % SAVE_EVERY == 0:
                whole = {"model": self.model.state_dict(), "optimizer": self._optimizer.state_dict()}
                torch.save(whole | {"step": self._step}, state.with_suffix(".new"))
                state.with_suffix(".new").replace(state)
        state.unlink(missing_ok=True)

    def _load(self, state: Path) -> None:
        stored = torch.load(state)
        self.model.load_state_dict(stored["model"])
        self._optimizer.load_state_dict(stored["optimizer"])
        self._step = stored["step"]

    def _train_step(self) -> None:
        size = ROWS * ROW_TOKENS
        block = self._ids[self._step * size : self._step * size + size + 1].long()
        rows, targets = block[:-1].view(ROWS, ROW_TOKENS), block[1:]
        for group in self._optimizer.param_groups:
            group["lr"] = self._schedule.rate(self._step)
        hidden = self.model.model(input_ids=rows).last_hidden_state.flatten(0, 1)
        self.loss = self._sampled_loss(hidden, targets)
        self._optimizer.zero_grad(set_to_none=True)
        self.loss.backward()
        self._optimizer.step()
        self._step += 1

    def _sampled_loss(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross entropy among the target and drawn tokens, their logits corrected by how often they are drawn."""
        drawn = torch.multinomial(self._share, NEGATIVES, replacement=True)
        weight = self._weight
        expected = (NEGATIVES * self._share).log().float()
        others = hidden @ functional.embedding(drawn, weight).T - expected[drawn]
        others = others.masked_fill(targets[:, None] == drawn, -torch.inf)
        own = (hidden * functional.embedding(targets, weight)).sum(dim=1) - expected[targets]
        return (torch.logsumexp(torch.cat([own[:, None], others], dim=1), dim=1) - own).mean()
