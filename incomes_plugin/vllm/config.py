"""Settings of the plugin inside the engine: `additional_config["incomes"]`, or environment variables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from incomes_plugin.errors import UnsupportedEngine
from incomes_plugin.model.adapter import EditAdapter

WORKER_CLS = "incomes_plugin.vllm.worker.EditWorker"
POOL_GISTS_VARIABLE = "INCOMES_POOL_GISTS"
FACT_GATE_VARIABLE = "INCOMES_FACT_GATE_ENTRIES"


@dataclass(frozen=True)
class PluginConfig:
    """How the engine holds gists.

    Attributes:
        pool_gists: gist entries the pool has room for, over all edit sets and live snapshots
            (an edit takes G of them). Allocated at start; a commit beyond it is refused.
        fact_gate_entries: gist entries of one edit set that the fact memory holds; 0 = all entries are searched.
    """

    pool_gists: int = 65_536
    fact_gate_entries: int = 0

    @classmethod
    def of(cls, vllm_config: Any) -> PluginConfig:
        """Read `additional_config`; the environment wins.

        Raises:
            UnsupportedEngine: an unknown key or a value that is not a number of entries.
        """
        given = dict((vllm_config.additional_config or {}).get("incomes", {}))
        for name, variable in (("pool_gists", POOL_GISTS_VARIABLE), ("fact_gate_entries", FACT_GATE_VARIABLE)):
            if variable in os.environ:
                given[name] = os.environ[variable]
        unknown = set(given) - {"pool_gists", "fact_gate_entries"}
        try:
            pool_gists = int(given.get("pool_gists", cls.pool_gists))
            fact_gate_entries = int(given.get("fact_gate_entries", cls.fact_gate_entries))
        except ValueError:
            pool_gists = fact_gate_entries = -1
        if unknown or pool_gists < 1 or fact_gate_entries < 0:
            raise UnsupportedEngine(
                f"incomes settings {given!r}: expected {{'pool_gists': integer > 0, 'fact_gate_entries': integer >= 0}}"
            )
        return cls(pool_gists, fact_gate_entries)


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
