"""The donor's tokenizer with the base's way of cutting numbers: a body keeps the arithmetic it learned.

Runs of digits are cut as the base cuts them before the donor's pieces are looked for, and number pieces that only the
base has ("87", " 15") join the donor's vocabulary behind its last id, so their rows are the base's, bit by bit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.transplant.digits import digit_scheme
from incomes_plugin.lab.transplant.tokens import TokenKind, Vocabulary, byte_alphabet, read_vocabulary
from incomes_plugin.lab.transplant.word_start import pipeline_parts

_GROUPS = re.compile(r"groups of (\d) from the (left|right)")
_NUMBER = re.compile(rb" ?[0-9]+")
_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")


def keep_numbers(base: PreTrainedTokenizerBase, donor: PreTrainedTokenizerBase) -> PreTrainedTokenizerFast:
    """The donor's tokenizer, cutting numbers as the base does; ids of its own tokens stay.

    Raises:
        InvalidValue: the base follows no rule that could be kept, or the donor's pieces cannot follow it.
    """
    scheme = digit_scheme(base)
    state: dict[str, Any] = json.loads(donor.backend_tokenizer.to_str())
    if state["model"].get("type") != "BPE":
        raise InvalidValue(f"numbers can be kept with BPE, not {state['model'].get('type')}", param="cut")
    space = _space(read_vocabulary(donor))
    wanted = _wanted(read_vocabulary(base), space)
    _cut_first(state, scheme, space, spaced=any(len(name) > 1 and name.startswith(space) for name in wanted))
    _settle_added(state)
    _add_pieces(state["model"], wanted)
    roles = {role: value for role in _ROLES if (value := getattr(donor, role, None))}
    kept = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), **roles)
    if digit_scheme(kept) != scheme:
        raise InvalidValue(f"the donor's pieces cannot cut numbers as {scheme}", param="cut")
    return kept


def _space(donor: Vocabulary) -> str:
    """How the donor's pieces write a space."""
    token = donor.by_form.get(b" ")
    if token is None or token.kind is not TokenKind.TEXT or len(token.name) != 1:
        raise InvalidValue("the donor has no piece for a space to put numbers behind", param="cut")
    return token.name


def _wanted(base: Vocabulary, space: str) -> list[str]:
    """The base's number pieces as the donor would write them, the shortest first, then those behind a space."""
    found = [t.form for t in base.tokens if t.kind is TokenKind.TEXT and not t.added and _NUMBER.fullmatch(t.form)]
    found.sort(key=lambda form: (form[:1] == b" ", len(form), form))
    return [form.decode().replace(" ", space) for form in found]


def _cut_first(state: dict[str, Any], scheme: str, space: str, *, spaced: bool) -> None:
    """Put the cutting in front of the donor's own, behind what writes spaces as the donor's pieces do.

    Args:
        spaced: the base takes a space before a number into its first piece.
    """
    parts = pipeline_parts(state["pre_tokenizer"], "pretokenizers")
    written = " " if space in byte_alphabet() else space
    pattern = (f"{written}?" if spaced else "") + _run(scheme)
    cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    place = max((index + 1 for index, part in enumerate(parts) if part["type"] == "Metaspace"), default=0)
    state["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*parts[:place], cut, *parts[place:]]}


def _run(scheme: str) -> str:
    """A pattern for one group of digits."""
    if scheme == "single":
        return r"\p{N}"
    found = _GROUPS.fullmatch(scheme)
    if found is None:
        raise InvalidValue(f"the base cuts numbers as {scheme}: no rule to keep", param="cut")
    size, side = int(found[1]), found[2]
    ahead = rf"(?=(?:\p{{N}}{{{size}}})*(?!\p{{N}}))" if side == "right" else ""
    return rf"\p{{N}}{{1,{size}}}{ahead}"


def _settle_added(state: dict[str, Any]) -> None:
    """Added tokens get places in the model's vocabulary, so that pieces behind them do not move them."""
    vocab: dict[str, int] = state["model"]["vocab"]
    taken = set(vocab.values())
    for entry in state["added_tokens"]:
        if entry["content"] not in vocab and entry["id"] not in taken:
            vocab[entry["content"]] = entry["id"]


def _add_pieces(model: dict[str, Any], names: Sequence[str]) -> None:
    """New merges at the end, where the donor's do not lead to a piece; new pieces behind its last id."""
    vocab: dict[str, int] = model["vocab"]
    ranks = {_pair(merge): rank for rank, merge in enumerate(model["merges"])}
    free = max(vocab.values()) + 1
    for name in names:
        parts = _merged(list(name), ranks)
        while len(parts) > 1:
            left, right, *rest = parts
            ranks[left, right] = len(ranks)
            free += vocab.setdefault(left + right, free) == free
            parts = [left + right, *rest]
    model["merges"] = [list(pair) for pair in ranks]


def _merged(parts: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding: the earliest merge first."""
    while len(parts) > 1:
        rank, place = min((ranks.get(pair, len(ranks)), i) for i, pair in enumerate(pairwise(parts)))
        if rank == len(ranks):
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right
