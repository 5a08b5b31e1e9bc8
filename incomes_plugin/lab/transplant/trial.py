"""Measures bits per byte on the user's text for several ways to make rows, to choose k or to compare methods. Nothing
is written.

The base's body is loaded once; every candidate's matrices take the places of the base's in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import wrap

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.progress import StageProgress
from incomes_plugin.lab.transplant.estimate import MatrixJob, make_matrix
from incomes_plugin.lab.transplant.inspection import probe
from incomes_plugin.lab.transplant.methods import METHODS, NEED_NO_DONOR_ROWS, Recipe
from incomes_plugin.lab.transplant.omp import Search
from incomes_plugin.lab.transplant.prepare import Prepared

PASSAGE_LETTERS = 500
"""Letters of a passage, 2,000 bytes or tokens at most. Each passage is read on its own, so that every tokenizer has the
same context."""
TEXT_BYTES = 32_768
"""Of the text, for one candidate."""
SHARES_OF_WIDTH = (1 / 32, 1 / 16, 1 / 8, 1 / 6, 1 / 4, 1 / 2)
"""Values of k to choose from, in units of the donor's width; 64 at most."""
PROBED = 16
"""Passages of the text at which new rows are asked what they say."""


@dataclass(frozen=True)
class Score:
    """A candidate and what a byte of the text costs with it."""

    recipe: Recipe
    bits_per_byte: float


@dataclass(frozen=True)
class Comparison:
    """What a byte of a text costs: of the base with its own tokenizer, and of every candidate."""

    before: float
    num_bytes: int
    scores: tuple[Score, ...]


def values_of_k(width: int) -> tuple[int, ...]:
    """Candidates for a donor of that width, ascending."""
    return tuple(sorted({max(1, min(64, round(share * width))) for share in SHARES_OF_WIDTH}))


def candidates(prepared: Prepared, recipe: Recipe, *, every_method: bool, every_k: bool) -> list[Recipe]:
    """What to try: the recipe; with every k, and with every method the donor allows."""
    donor = prepared.donor.matrices
    names = [m for m in METHODS if donor or m in NEED_NO_DONOR_ROWS] if every_method else [recipe.method]
    found: list[Recipe] = []
    for name in names:
        several = name == "omp" and every_k and donor is not None
        sizes = values_of_k(donor.embedding.shape()[1]) if several and donor else (recipe.k,)
        found += [replace(recipe, method=name, k=k) for k in sizes]
    return found


class Trial:
    """The base's body and a text.

    Args:
        longest: the largest k among the candidates.

    Attributes:
        model: the body with the rows of the last candidate, float32.
        before: bits per byte of the base with its own tokenizer.
        num_bytes: of the text that is read.
        probes: what the base's body has to say about the beginning of the text.

    Raises:
        InvalidValue: the text is empty.
    """

    def __init__(self, prepared: Prepared, text: str, longest: int) -> None:
        self._prepared = prepared
        self._texts = passages(text, TEXT_BYTES)
        if not self._texts:
            raise InvalidValue("the text is empty", param="text")
        self.model = load_model(prepared.base.folder)
        self.num_bytes = sum(len(text.encode()) for text in self._texts)
        self.probes = probe(self.model, prepared, self._texts[:PROBED])
        self.before = bits_per_byte(self.model, prepared.base.tokenizer, self._texts)
        self._searches = {pair.base.name: Search(longest) for pair in prepared.pairs}

    def score(self, recipe: Recipe, report: StageProgress | None = None) -> Score:
        """Make the rows, put them in, read the text."""
        for pair in self._prepared.pairs:
            told = (lambda done, total, part=pair.part: report(part, done, total)) if report else None  # type: ignore[misc]
            k = recipe.atoms((pair.donor or pair.base).shape()[1])
            search = self._searches[pair.base.name]
            job = MatrixJob.of(self._prepared, pair, recipe, k, search)
            made = make_matrix(job, pair.base.read(), pair.donor.read() if pair.donor else None, told)
            _put(self.model, pair.part, made.weight.float())
        return Score(recipe, bits_per_byte(self.model, self._prepared.fitted.tokenizer, self._texts))


def load_model(folder: Path) -> PreTrainedModel:
    """A checkpoint's model, float32."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval().requires_grad_(False)


def _put(model: PreTrainedModel, part: str, weight: torch.Tensor) -> None:
    """A new matrix in its place; a tied head follows the embedding."""
    tied = model.config.get_text_config().tie_word_embeddings
    if part == "embedding":
        model.get_input_embeddings().weight = torch.nn.Parameter(weight, requires_grad=False)
    if part == "head" or tied:
        model.get_output_embeddings().weight = torch.nn.Parameter(weight, requires_grad=False)


def best(scores: Sequence[Score]) -> Score:
    """The candidate with the fewest bits."""
    return min(scores, key=lambda score: score.bits_per_byte)


def passages(text: str, most_bytes: int) -> list[str]:
    """Lines of a text, long ones cut, the first `most_bytes` of them; one at least."""
    found: list[str] = []
    spent = 0
    for line in text.splitlines():
        for passage in wrap(line, PASSAGE_LETTERS):
            spent += len(passage.encode())
            if found and spent > most_bytes:
                return found
            found.append(passage)
    return found


@torch.inference_mode()
def bits_per_byte(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> float:
    """Mean over all bytes; every text stands behind the begin token."""
    bits = sum(_bits(model, tokenizer, text) for text in texts)
    return bits / max(1, sum(len(text.encode()) for text in texts))


def _bits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> float:
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids = torch.tensor([start, *tokenizer(text, add_special_tokens=False)["input_ids"]])
    hidden = model.base_model(input_ids=ids[None]).last_hidden_state[0, :-1]
    logits = model.get_output_embeddings()(hidden).float()
    return float(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum")) / math.log(2)
