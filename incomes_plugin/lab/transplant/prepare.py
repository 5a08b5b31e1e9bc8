"""Two folders in, out: everything that is decided before a row is made. Nothing is written here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.transplant.alignment import Alignment, align, pieces
from incomes_plugin.lab.transplant.cutting import Cut, cut_text
from incomes_plugin.lab.transplant.matrices import Matrices, TensorPlace, find_matrices
from incomes_plugin.lab.transplant.rows import RowPlan, plan_rows
from incomes_plugin.lab.transplant.special import Specials, match_specials
from incomes_plugin.lab.transplant.tokenizer import FittedTokenizer, fit_tokenizer
from incomes_plugin.lab.transplant.tokens import Vocabulary, read_vocabulary
from incomes_plugin.model.adapter import EditAdapter


@dataclass(frozen=True)
class Model:
    """One side of a transplant.

    Attributes:
        matrices: None for a tokenizer alone.
        rows: rows of the input embedding; the vocabulary's size for a tokenizer alone.
    """

    folder: Path
    tokenizer: PreTrainedTokenizerBase
    vocabulary: Vocabulary
    matrices: Matrices | None
    rows: int

    @classmethod
    def load(cls, folder: Path, cut: Cut = Cut.DONOR, base: PreTrainedTokenizerBase | None = None) -> Model:
        """Tokenizer and places of the matrices; no weights.

        Args:
            cut: what of `base` the folder's tokenizer is made to keep.
        """
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
        if base is None:
            vocabulary = read_vocabulary(tokenizer)
        else:
            tokenizer, vocabulary = cut_text(base, tokenizer, cut)
        matrices = find_matrices(folder)
        rows = matrices.embedding.shape()[0] if matrices else vocabulary.size
        return cls(folder, tokenizer, vocabulary, matrices, rows)


@dataclass(frozen=True)
class MatrixPair:
    """A matrix of the base and the one of the donor whose space it is estimated from; `part` is embedding or head."""

    part: str
    base: TensorPlace
    donor: TensorPlace | None


@dataclass(frozen=True)
class Prepared:
    """The plan of a transplant.

    Attributes:
        adapter: of the base; None = it takes no edits.
    """

    base: Model
    donor: Model
    alignment: Alignment
    specials: Specials
    fitted: FittedTokenizer
    rows: RowPlan
    cut: Cut
    adapter: EditAdapter | None

    @property
    def base_matrices(self) -> Matrices:
        """The base has weights; `prepare` has seen to it."""
        assert self.base.matrices is not None
        return self.base.matrices

    @property
    def pairs(self) -> tuple[MatrixPair, ...]:
        """The matrices to make; a copy of a tied embedding is made like the embedding."""
        own, other = self.base_matrices, self.donor.matrices
        outer = other.embedding if other else None
        pairs = [MatrixPair("embedding", place, outer) for place in (own.embedding, *own.copies)]
        if own.head:
            pairs.append(MatrixPair("head", own.head, (other.head or outer) if other else None))
        return tuple(pairs)

    @property
    def anchors(self) -> tuple[tuple[int, int], ...]:
        """(donor id, base id) with rows on both sides."""
        return self.alignment.anchors(self.donor.rows)

    @cached_property
    def pieces(self) -> list[list[int]]:
        """Base ids that spell every token a row is estimated for."""
        forms = (self.donor.vocabulary.by_id[index].form for index in self.rows.estimated)
        return [pieces(form, self.base.vocabulary, self.base.rows) for form in forms]


def prepare(
    base_dir: Path,
    donor_dir: Path,
    special_map: Mapping[str, str],
    cut: Cut = Cut.DONOR,
    adapter: EditAdapter | None = None,
) -> Prepared:
    """Read both tokenizers and decide where every row comes from.

    Args:
        special_map: names of base tokens by names of donor tokens.
        cut: how text is cut into tokens.
        adapter: of the base.

    Raises:
        InvalidValue: a folder that is no model, or a map that cannot be.
    """
    for folder, name in ((base_dir, "base"), (donor_dir, "donor")):
        if not folder.is_dir():
            raise InvalidValue(f"{folder} is no folder; give a downloaded model", param=name)
    base = Model.load(base_dir)
    donor = Model.load(donor_dir, cut, base.tokenizer)
    if base.matrices is None:
        raise InvalidValue(f"{base_dir} has no safetensors weights", param="base")
    rowless = {token.id for token in base.vocabulary.specials.values() if token.id >= base.rows}
    specials = match_specials(base.vocabulary, donor.vocabulary, special_map, rowless)
    alignment = align(base.vocabulary, donor.vocabulary, base.rows)
    fitted = fit_tokenizer(base.tokenizer, donor.tokenizer, specials)
    rows = plan_rows(donor.vocabulary, alignment, specials, fitted.carried_ids)
    return Prepared(base, donor, alignment, specials, fitted, rows, cut, adapter)
