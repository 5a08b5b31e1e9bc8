"""Special tokens of two vocabularies in, out: which of them play the same part, which the base brings along.

Pairs are made by an explicit map, then by name, then by role. No two tokens ever share a partner: GPT-2's one token for
begin, end and unknown takes the end, and the base's other tokens join the donor's tokenizer under their own names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.transplant.tokens import ROLES, Token, TokenKind, Vocabulary


@dataclass(frozen=True)
class Specials:
    """What becomes of special tokens.

    Attributes:
        copied: base id for donor ids that play its part.
        carried: tokens of the base that the donor's tokenizer lacks.
        renamed: the donor's name for a base token, where they differ.
        unmatched: the donor's special tokens that the base knows nothing of.
    """

    copied: dict[int, int]
    carried: tuple[Token, ...]
    renamed: dict[str, str]
    unmatched: tuple[int, ...]


def match_specials(
    base: Vocabulary, donor: Vocabulary, explicit: Mapping[str, str], left_out: Collection[int] = ()
) -> Specials:
    """Pair special tokens.

    Args:
        explicit: base names by donor names.
        left_out: base ids that are no partners and not carried: ids without a row.

    Raises:
        InvalidValue: `explicit` names a token that is not special, one without a row, or one base token twice.
    """
    pairs: dict[int, int] = {}
    taken: set[int] = set()

    def pair(donor_token: Token | None, base_token: Token | None) -> None:
        if donor_token is None or base_token is None or base_token.id in left_out:
            return
        if donor_token.id not in pairs and base_token.id not in taken:
            pairs[donor_token.id] = base_token.id
            taken.add(base_token.id)

    for donor_name, base_name in explicit.items():
        pair(_named(donor, donor_name, "donor"), _named(base, base_name, "base"))
    if len(pairs) != len(explicit):
        raise InvalidValue("the map names a token of the base twice, or one without a row", param="map")
    for name, token in base.specials.items():
        pair(donor.specials.get(name), token)
    for role in ROLES:
        pair(_in_role(donor, role), _in_role(base, role))
    carried = [t for t in base.specials.values() if t.id not in taken and t.id not in left_out]
    names = {base.by_id[b].name: donor.by_id[d].name for d, b in pairs.items()}
    return Specials(
        copied=pairs,
        carried=tuple(carried),
        renamed={base_name: donor_name for base_name, donor_name in names.items() if base_name != donor_name},
        unmatched=tuple(token.id for token in donor.specials.values() if token.id not in pairs),
    )


def _named(vocabulary: Vocabulary, name: str, which: str) -> Token:
    token = vocabulary.specials.get(name)
    if token is None:
        known = ", ".join(list(vocabulary.specials)[:8])
        raise InvalidValue(f"the {which} has no special token {name!r}; it has {known}", param="map")
    return token


def _in_role(vocabulary: Vocabulary, role: str) -> Token | None:
    token = vocabulary.by_id.get(vocabulary.roles.get(role, -1))
    return token if token and token.kind is TokenKind.SPECIAL else None
