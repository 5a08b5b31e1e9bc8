"""The refusal beyond a safe load: of a commit (`gate/load.py`), and of a plan before there is one (`plan/cli.py`)."""

from __future__ import annotations

from incomes_plugin.errors import PoolFull


def refuse_beyond_safe_load(memory: str, wanted: int, what: str, safe: int, remedy: str, *, param: str) -> None:
    """Refuse what a memory would not hold safely; nothing has been written when it is asked.

    Args:
        memory: what would be full.
        wanted: how many of `what`.
        safe: the most that it holds safely.
        remedy: names the next size.
        param: the setting or option that sets the size.

    Raises:
        PoolFull: `wanted` is more than `safe`.
    """
    if wanted > safe:
        raise PoolFull(
            f"{memory} is full: {wanted:,} {what} are more than the {safe:,} it holds safely; {remedy}", param=param
        )
