"""Libraries that only rivals need: `pip install 'incomes[eval]'`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from incomes_plugin.errors import InvalidValue


def optional(module: str) -> Any:
    """The module. Raises InvalidValue with the command that installs it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise InvalidValue(f"this method needs {module}: pip install 'incomes[eval]'", param="methods") from error
