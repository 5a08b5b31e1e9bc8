"""Settings of the plugin inside the engine: `additional_config["incomes"]` of vLLM's own configuration."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from incomes_plugin.errors import UnsupportedEngine
from incomes_plugin.pool.indexing import INDEX_FROM_EDITS

WORKER_CLS = "incomes_plugin.vllm.worker.EditWorker"
CONFIG_KEY = "incomes"
_MOST_DEVICE_BYTES = 256 << 20


@dataclass(frozen=True)
class PluginConfig:
    """How the engine holds gists.

    Attributes:
        adapter: folder of the edit adapter.
        pool_bytes: host memory for gists, over all edit sets and live snapshots; a commit beyond it is refused.
        index_from_edits: edits of an edit set from which on routing on a CPU goes through an index.
    """

    adapter: Path
    pool_bytes: int
    index_from_edits: int = INDEX_FROM_EDITS

    @property
    def device_bytes(self) -> int:
        """Device memory for picked edits that no request holds."""
        return min(_MOST_DEVICE_BYTES, self.pool_bytes)

    @classmethod
    def of(cls, vllm_config: Any) -> PluginConfig:
        """Read `additional_config`.

        Raises:
            UnsupportedEngine: a key is unknown or missing, or a value is not what it should be.
        """
        additional = vllm_config.additional_config
        given = additional.get(CONFIG_KEY) if isinstance(additional, dict) else None
        expected = '{"adapter": folder, "pool_bytes": integer > 0, "index_from_edits": integer > 0}'
        if not isinstance(given, dict) or set(given) != {"adapter", "pool_bytes", "index_from_edits"}:
            raise UnsupportedEngine(f"additional_config[{CONFIG_KEY!r}] is {given!r}, expected {expected}")
        adapter, numbers = given["adapter"], (given["pool_bytes"], given["index_from_edits"])
        if not isinstance(adapter, str) or not all(isinstance(number, int) and number > 0 for number in numbers):
            raise UnsupportedEngine(f"additional_config[{CONFIG_KEY!r}] is {given!r}, expected {expected}")
        return cls(Path(adapter), *numbers)

    def added_to(self, additional: object) -> dict[str, Any]:
        """What the user gave as `additional_config`, and these settings.

        Raises:
            UnsupportedEngine: the user gave settings of the plugin there, or something that is not an object.
        """
        if not isinstance(additional or {}, dict) or CONFIG_KEY in (additional or {}):  # type: ignore[operator]
            raise UnsupportedEngine(
                f"--additional-config is a JSON object without the key {CONFIG_KEY!r}, which is set here"
            )
        own = {**asdict(self), "adapter": str(self.adapter.absolute())}
        return {**(additional or {}), CONFIG_KEY: own}  # type: ignore[dict-item]


def has_selection_layer(vllm_config: Any) -> bool:
    """Whether an engine with this configuration runs our worker."""
    return bool(vllm_config.parallel_config.worker_cls == WORKER_CLS)
