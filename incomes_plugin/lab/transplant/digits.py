"""Finds out how a tokenizer cuts numbers by trying some. A model that learned arithmetic with one way of cutting cannot
do it with another."""

from __future__ import annotations

from collections import Counter

from transformers import PreTrainedTokenizerBase

_STEPS = {2: 1, 3: 7, 4: 71, 5: 701}
PROBES = tuple(str(n) for length, step in _STEPS.items() for n in range(10 ** (length - 1), 10**length, step))
"""Numbers of two to five digits, about a hundred of each length."""
TYPICAL = 0.9
"""Share of the numbers of one length that must be cut alike to count as a rule. It is below 1 because vocabularies lack
some groups of digits."""
Cutting = tuple[int, ...]


def digit_scheme(tokenizer: PreTrainedTokenizerBase) -> str:
    """`single`, `groups of N from the left` or `from the right`, or `learned` where no rule holds."""
    seen: dict[int, Counter[Cutting]] = {}
    for number, cutting in zip(PROBES, _cuttings(tokenizer), strict=True):
        seen.setdefault(len(number), Counter())[cutting] += 1
    typical = {}
    for length, counts in seen.items():
        cutting, count = counts.most_common(1)[0]
        if count < TYPICAL * counts.total():
            return "learned"
        typical[length] = cutting
    if all(max(cutting) == 1 for cutting in typical.values()):
        return "single"
    for size in (2, 3, 4):
        for side in ("left", "right"):
            if all(cutting == _groups(length, size, side) for length, cutting in typical.items()):
                return f"groups of {size} from the {side}"
    return "learned"


def _cuttings(tokenizer: PreTrainedTokenizerBase) -> list[Cutting]:
    """Digits in each token of every probe."""
    found = []
    for ids in tokenizer(list(PROBES), add_special_tokens=False)["input_ids"]:
        digits = [sum(letter.isdigit() for letter in str(tokenizer.convert_ids_to_tokens(index))) for index in ids]
        found.append(tuple(count for count in digits if count))
    return found


def _groups(length: int, size: int, side: str) -> Cutting:
    whole, rest = divmod(length, size)
    groups = [size] * whole
    remainder = [rest] if rest else []
    return tuple([*groups, *remainder] if side == "left" else [*remainder, *groups])
