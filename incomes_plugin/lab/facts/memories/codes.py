"""Values: a unit code of an id. Facts that share an answer still have values of their own; id -> answer is a table.

A linear memory of shared values fails (docs/facts.md), and a code of the edit's id says which edit was meant besides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from incomes_plugin.errors import InvalidValue


def unit_codes(ids: Sequence[str], width: int) -> torch.Tensor:
    """Codes `[N, width]` float32 of length 1: signs from a hash of the id, the same on every machine and at any time.

    Args:
        width: U; a multiple of 8.

    Raises:
        InvalidValue: `width` is none.
    """
    if width < 8 or width % 8:
        raise InvalidValue(f"codes of {width} numbers: the width must be a multiple of 8, at least 8", param="width")
    bits = b"".join(hashlib.shake_256(name.encode()).digest(width // 8) for name in ids)
    signs = np.unpackbits(np.frombuffer(bits, np.uint8)).reshape(len(ids), width)
    return (torch.from_numpy(signs).float() * 2 - 1) / width**0.5
