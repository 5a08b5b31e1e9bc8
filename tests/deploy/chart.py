"""Rendering the chart for its tests: objects by kind, leaves of the values, a place in an object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "incomes"
VALUE_FILES = sorted((ROOT / "deploy" / "helm" / "values").glob("*.yaml"))
LEAST: dict[str, Any] = {
    "image": {"repository": "registry.example/incomes"},
    "apiKeys": {"existingSecret": "keys"},
}
"""What every installation has to give."""

Objects = dict[tuple[str, str], dict[str, Any]]
"""Objects by kind and name."""


@cache
def chart() -> Chart:
    """The chart, loaded once."""
    return Chart.load(CHART)


def defaults() -> dict[str, Any]:
    """The chart's own values."""
    values: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return values


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Values over values, as Helm does it: objects are merged, everything else is replaced."""
    result: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
            result[name] = merged(result[name], value) if both else value
    return result


def render(*layers: Mapping[str, Any]) -> Objects:
    """All objects of a release `r` in the namespace `n`."""
    return objects_of(rendered(*layers))


def rendered(*layers: Mapping[str, Any]) -> dict[str, str]:
    """The text of each template."""
    values = merged(LEAST, *layers)
    chart().validate_schema(values)
    return chart().render(values, name="r", namespace="n")


def objects_of(texts: Mapping[str, str]) -> Objects:
    """The objects in the text of templates."""
    found = [o for path, text in texts.items() if path.endswith(".yaml") for o in yaml.safe_load_all(text) if o]
    return {(o["kind"], o["metadata"]["name"]): o for o in found}


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of all values that are no objects, and of objects that are empty or free."""
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value and path not in FREE:
            yield from leaves(value, path + ".")
        else:
            yield path


FREE = frozenset(
    {"settings", "grafanaDashboard.labels"}
    | {f"{of}resources.{kind}" for of in ("", "compression.", "cluster.head.") for kind in ("requests", "limits")}
)
"""Objects whose names are not the chart's."""


def nested(path: str, value: Any) -> dict[str, Any]:
    """`a.b`, 1 -> {a: {b: 1}}."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return dict(value)


def place(found: Any, path: str) -> Any:
    """What stands at a dotted path of an object; numbers are places of a list, `name=x` an element by its name."""
    for step in path.split("/"):
        if isinstance(found, list):
            found = (
                next(item for item in found if item.get("name") == step.removeprefix("name="))
                if step.startswith("name=")
                else found[int(step)]
            )
        else:
            found = found[step]
    return found
