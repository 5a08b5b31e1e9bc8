"""How text is cut into tokens after a transplant: as the donor does, or in part as the base does. The token ids are
always the donor's."""

from __future__ import annotations

from enum import StrEnum

from transformers import PreTrainedTokenizerBase

from incomes_plugin.lab.transplant.numbers import keep_numbers
from incomes_plugin.lab.transplant.tokens import Vocabulary, read_vocabulary
from incomes_plugin.lab.transplant.words import keep_words


class Cut(StrEnum):
    """What of the base's cutting is kept."""

    DONOR = "donor"  # nothing: text becomes the tokens it becomes for the donor
    NUMBERS = "numbers"  # numbers; everything else is the donor's
    WORDS = "words"  # everything, but for words that are one token of the donor


def cut_text(
    base: PreTrainedTokenizerBase, donor: PreTrainedTokenizerBase, cut: Cut
) -> tuple[PreTrainedTokenizerBase, Vocabulary]:
    """The donor's tokenizer, cutting text as wished, and its vocabulary.

    Raises:
        InvalidValue: one of the two cannot do it, see `keep_numbers` and `keep_words`.
    """
    if cut is Cut.WORDS:
        return keep_words(base, donor)
    tokenizer = keep_numbers(base, donor) if cut is Cut.NUMBERS else donor
    return tokenizer, read_vocabulary(tokenizer)
