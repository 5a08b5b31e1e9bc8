"""From the name of a model to the two folders that are served: a base and the edit adapter that belongs to it.

Called by `incomes serve`, `incomes doctor` and the evaluation. MODEL is a base (`default`, a folder, a hub id) or a
folder made by `incomes adapt`, which names its base.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from incomes_plugin.errors import AdapterMismatch, AdapterMissing, InvalidValue
from incomes_plugin.gist.fingerprint import base_fingerprint
from incomes_plugin.model.adapter import CONFIG_FILE, EditAdapter
from incomes_plugin.model.base import COMMAND, DEFAULT_BASE, Say, resolve_model, say_on_stderr

DEFAULT_ADAPTER_DIR = Path(__file__).parent / "assets" / DEFAULT_BASE
"""The adapter of the default base, which ships in the package."""


@dataclass(frozen=True)
class Served:
    """A base and its adapter, checked against each other."""

    base_dir: Path
    adapter_dir: Path


def resolve(model: str | None, adapter: str | None, say: Say = say_on_stderr) -> Served:
    """Find base and adapter. The base is fetched if it is not on this machine.

    Args:
        model: `default` or None, a base's folder, a hub id, or a folder made by `incomes adapt`.
        adapter: an adapter's folder; None: the one that MODEL is, or the packaged one.
        say: gets one line whenever a long step begins or ends.

    Raises:
        InvalidValue: both MODEL and `adapter` are adapters, or the base's folder holds no checkpoint.
        AdapterMissing: there is no adapter for the base.
        AdapterMismatch: the adapter was made for another base.
        BaseModelUnavailable: the base is not there and cannot be fetched.
        GistFormatError: the adapter is damaged or of another format.
    """
    named = None if model in (None, "default") else model
    if named is not None and is_adapter(Path(named).expanduser()):
        if adapter is not None:
            raise InvalidValue(f"{named} is an edit adapter: give a base as MODEL, or no --adapter", param="adapter")
        named, adapter = None, named
    if adapter is None:
        return _with_packaged_adapter(named, say)
    adapter_dir = Path(adapter).expanduser()
    if not is_adapter(adapter_dir):
        raise AdapterMissing(f"{adapter} has no {CONFIG_FILE}, it is no adapter; {_remedy(named)}", param="adapter")
    base = EditAdapter.load(adapter_dir).base
    base_dir = _base(named or base.name, say)
    if (found := base_fingerprint(base_dir)) != base.fingerprint:
        raise AdapterMismatch(
            f"the adapter {adapter_dir} was made for the base {base.name} ({base.fingerprint}), {base_dir} is another "
            f"one ({found}); {_remedy(named or str(base_dir))}",
            param="adapter",
        )
    return Served(base_dir, adapter_dir)


def is_adapter(folder: Path) -> bool:
    """Whether a folder was made by `incomes adapt`."""
    return (folder / CONFIG_FILE).is_file()


def _with_packaged_adapter(named: str | None, say: Say) -> Served:
    """The packaged adapter, if the base has the files of the default base, whatever its folder or name is."""
    base_dir = _base(named, say)
    packaged = EditAdapter.load(DEFAULT_ADAPTER_DIR).base if is_adapter(DEFAULT_ADAPTER_DIR) else None
    if packaged is not None and packaged.fingerprint == base_fingerprint(base_dir):
        return Served(base_dir, DEFAULT_ADAPTER_DIR)
    if named is not None:
        raise AdapterMissing(f"{named} has no edit adapter; {_remedy(named)}", param="model")
    if packaged is None:
        raise AdapterMissing(f"this installation has no adapter in {DEFAULT_ADAPTER_DIR}; {_remedy(None)}")
    raise AdapterMismatch(
        f"the base in {base_dir} is not the one that the packaged adapter was made for; `{COMMAND} --check` compares "
        "it with its checksums and mends it"
    )


def _base(name: str | None, say: Say) -> Path:
    """The base's folder. Raises InvalidValue, BaseModelUnavailable."""
    base_dir = resolve_model(name, say)
    missing = [file for file in ("config.json", "tokenizer.json") if not (base_dir / file).is_file()]
    if missing:
        raise InvalidValue(
            f"{base_dir} has no {missing[0]}: MODEL is a base's folder, a hub id, or a folder made by `incomes adapt`",
            param="model",
        )
    return base_dir


def _remedy(model: str | None) -> str:
    return f"make one: incomes adapt {model or 'default'} --out DIR, then incomes serve DIR"
