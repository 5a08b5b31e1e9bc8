"""Public ids: a prefix that names the kind, then 24 random characters that are safe in URLs and easy to select."""

from __future__ import annotations

import secrets
import string
from enum import StrEnum

_ALPHABET = string.ascii_letters + string.digits
_RANDOM_CHARS = 24


class IdPrefix(StrEnum):
    """Kinds of ids made here; the value is the prefix."""

    EDIT_SET = "eset_"
    EDIT = "edit_"
    LEASE = "lease_"
    FILE = "file-"
    BATCH = "batch_"
    AUDIT = "audit_"
    API_KEY = "key_"
    DATA_KEY = "dk_"
    EVAL_RUN = "evalrun_"


def new_id(prefix: IdPrefix) -> str:
    """A fresh id, e.g. `edit_8KqT…` (142 random bits)."""
    number, characters = secrets.randbelow(len(_ALPHABET) ** _RANDOM_CHARS), []
    for _ in range(_RANDOM_CHARS):
        number, place = divmod(number, len(_ALPHABET))
        characters.append(_ALPHABET[place])
    return prefix + "".join(characters)


def is_id(value: str, prefix: IdPrefix) -> bool:
    """Whether `value` is written like an id of this kind (a name never is: see `check_name`)."""
    return value.startswith(prefix)
