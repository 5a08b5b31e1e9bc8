"""Writes what follows from the chart and the code: the settings in values.schema.json, and the Kustomize base.

`python deploy/helm/render.py` writes; with `--check` it writes nothing, and its exit status says if all is current.
tests/deploy calls `expected`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml
from incomes_server.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "incomes"
SCHEMA = CHART / "values.schema.json"
BASE = ROOT / "deploy" / "kustomize" / "base"
BASE_VALUES = ROOT / "deploy" / "helm" / "values" / "kustomize-base.yaml"
SET_BY_THE_CHART = (
    "host", "port", "admin_host", "admin_port", "edit_store", "api_keys", "encryption_key", "replica_name",
    "gist_storage", "join", "ray_address", "ray_namespace", "ray_node_ip", "ray_token",
)  # fmt: skip
HEADER = "# Rendered from deploy/helm/incomes by deploy/helm/render.py; change the chart, not this file.\n"


def expected() -> dict[Path, str]:
    """What each file has to hold."""
    return {SCHEMA: schema(), **base()}


def schema() -> str:
    """values.schema.json, its settings taken from the code."""
    data: dict[str, Any] = json.loads(SCHEMA.read_text())
    data["properties"]["settings"] = settings_schema()
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def settings_schema() -> dict[str, Any]:
    """Schema of the settings that a user of the chart may give."""
    own = Settings.model_json_schema()["properties"]
    properties = {}
    for name, field in own.items():
        if name not in SET_BY_THE_CHART:
            properties[name] = {key: value for key, value in field.items() if key not in ("default", "title")}
    if "pool_bytes" in properties:  # the settings file takes 4GiB as well
        size = {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)? ?([KMGT]i?B?)?$"}
        described = properties["pool_bytes"].pop("description")
        properties["pool_bytes"] = {"anyOf": [properties["pool_bytes"], size], "description": described}
    return {
        "type": "object",
        "description": "docs/settings.md; what the chart sets itself is refused: " + ", ".join(SET_BY_THE_CHART),
        "additionalProperties": False,
        "properties": properties,
        "required": ["shutdown_timeout_s"],
    }


def base() -> dict[Path, str]:
    """The Kustomize base: each object in a file, and the list of them."""
    from helm_python import Chart

    rendered = Chart.load(CHART).render(yaml.safe_load(BASE_VALUES.read_text()), name="incomes", namespace="incomes")
    files: dict[Path, str] = {}
    for path, text in sorted(rendered.items()):
        for manifest in yaml.safe_load_all(text) if path.endswith(".yaml") else ():
            if manifest:
                name = f"{manifest['kind']}-{manifest['metadata']['name']}.yaml".lower()
                files[BASE / name] = HEADER + yaml.safe_dump(_without_helm(manifest), sort_keys=False, width=120)
    listed = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "incomes",
        "resources": sorted(path.name for path in files),
    }
    return {**files, BASE / "kustomization.yaml": HEADER + yaml.safe_dump(listed, sort_keys=False)}


def _without_helm(manifest: dict[str, Any]) -> dict[str, Any]:
    """An object without the labels and annotations that speak of Helm."""
    template = manifest.get("spec", {}).get("template", {})
    for metadata in (manifest["metadata"], template.get("metadata", {})):
        for kind in ("labels", "annotations"):
            for key in [
                key for key in metadata.get(kind, {}) if key.startswith(("helm.sh/", "app.kubernetes.io/managed"))
            ]:
                del metadata[kind][key]
            if kind in metadata and not metadata[kind]:
                del metadata[kind]
    return manifest


def main() -> int:
    """Command line: `render.py [--check]`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 when a file is not current")
    check = parser.parse_args().check
    wanted = expected()
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text() != text]
    gone = [path for path in BASE.glob("*.yaml") if path not in wanted]
    for path in [*stale, *gone]:
        sys.stdout.write(f"{'not current' if check else 'written'}: {path.relative_to(ROOT)}\n")
    if not check:
        BASE.mkdir(parents=True, exist_ok=True)
        for path in stale:
            path.write_text(wanted[path])
        for path in gone:
            path.unlink()
    return int(check and bool(stale or gone))


if __name__ == "__main__":
    sys.exit(main())
