"""Objects against the schemas of custom resources, where these are at hand: a folder that INCOMES_CRDS names."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml


def validated(found: dict[str, Any], file: str) -> None:
    """Raise ValueError when the definition in that file does not know the object, or a field of it."""
    version = found["apiVersion"].rpartition("/")[2]
    errors = [error.message for error in jsonschema.Draft202012Validator(_schema(file, version)).iter_errors(found)]
    if errors:
        raise ValueError("; ".join(errors))


@cache
def _schema(file: str, version: str) -> dict[str, Any]:
    text = (Path(os.environ["INCOMES_CRDS"]) / file).read_text()
    versions = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]["versions"]
    schema: dict[str, Any] = next(each for each in versions if each["name"] == version)["schema"]["openAPIV3Schema"]
    return _strict(schema)


def _strict(schema: Any) -> Any:
    """A field that the schema does not name is refused, as the API server would drop it; int-or-string is both."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    strict = {name: _strict(each) for name, each in schema.items() if name != "x-kubernetes-validations"}
    keeps = schema.get("x-kubernetes-preserve-unknown-fields") or "metadata" in schema.get("required", ())
    if "properties" in schema and "additionalProperties" not in schema and not keeps:
        strict["additionalProperties"] = False
    return strict
