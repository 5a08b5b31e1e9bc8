"""Settings of the plugin inside the engine: `additional_config["incomes"]`, or environment variables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from incomes_plugin.errors import UnsupportedEngine
from incomes_plugin.model.adapter import EditAdapter

WORKER_CLS = "incomes_plugin.vllm.worker.EditWorker"
POOL_GISTS_VARIABLE = "INCOMES_POOL_GISTS"


@dataclass(frozen=True)
class PluginConfig:
    """How the engine holds gists.

    Attributes:
        pool_gists: gist entries the pool has room for, over all edit sets and live snapshots
            (an edit takes G of them). Allocated at start; a commit beyond it is refused.
    """

    pool_gists: int = 65_536

    @classmethod
    def of(cls, vllm_config: Any) -> PluginConfig:
        """Read `additional_config`; the environment wins.

        Raises:
            UnsupportedEngine: an unknown key or a value that is not a positive integer.
        """
        given = dict((vllm_config.additional_config or {}).get("incomes", {}))
        if POOL_GISTS_VARIABLE in os.environ:
            given["pool_gists"] = os.environ[POOL_GISTS_VARIABLE]
        unknown = set(given) - {"pool_gists"}
        try:
            pool_gists = int(given.get("pool_gists", cls.pool_gists))
        except ValueError:
            pool_gists = 0
        if unknown or pool_gists < 1:
            raise UnsupportedEngine(f"incomes settings {given!r}: expected {{'pool_gists': integer > 0}}")
        return cls(pool_gists)


def has_selection_layer(vllm_config: Any) -> bool:
    """Whether an engine with this configuration runs our worker."""
    return bool(vllm_config.parallel_config.worker_cls == WORKER_CLS)


def refuse_rotary_query(adapter: EditAdapter) -> None:
    """Raise UnsupportedEngine for an adapter of the paper's recipe: the engine's queries are un-rotated."""
    if adapter.rotary_query:
        raise UnsupportedEngine(
            "this model selects with rotated queries (`incomes train --tune full`, the paper's recipe), the engine "
            "with un-rotated ones; evaluate it with `incomes eval --backend hf --method paper`"
        )
