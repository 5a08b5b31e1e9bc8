"""Several engines in mode deployment: who selects whom, what the pods are told, and what KEDA asks."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from incomes_server.settings import load_settings

from tests.deploy.chart import merged, place, render
from tests.deploy.crd import validated
from tests.deploy.test_chart import (
    ADMIN,
    CLUSTER,
    COMPRESS,
    DEPLOYMENT,
    HEAD,
    MAIN,
    PDB,
    PDB_ON,
    POD,
    POLICY,
    SCALED,
    SCALED_COMPRESS,
    SCALING,
    SERVICE,
    VALUE_FILES,
    values_of,
)  # fmt: skip
from tests.deploy.test_observability import is_known, metrics_in

BOTH = (DEPLOYMENT, COMPRESS, HEAD)


def labels(found: dict[str, Any]) -> dict[str, str]:
    """Labels of the pods of a deployment."""
    return dict(place(found, "spec/template/metadata/labels"))


def selects(selector: dict[str, str], found: dict[str, Any]) -> bool:
    """Whether pods of a deployment have all these labels."""
    return selector.items() <= labels(found).items()


def test_nothing_selects_the_pods_of_another_part() -> None:
    objects = render(CLUSTER, PDB_ON)
    for own in BOTH:
        assert [
            other for other in BOTH if selects(place(objects[own], "spec/selector/matchLabels"), objects[other])
        ] == [own]
    for service, part in (
        (SERVICE, DEPLOYMENT), (ADMIN, DEPLOYMENT), (("Service", "r-incomes-ray"), HEAD),
        (("Service", "r-incomes-compress"), COMPRESS),
    ):  # fmt: skip
        assert [own for own in BOTH if selects(place(objects[service], "spec/selector"), objects[own])] == [part]
    assert [own for own in BOTH if selects(place(objects[PDB], "spec/selector/matchLabels"), objects[own])] == [
        DEPLOYMENT
    ]


def test_the_pods_of_a_cluster_reach_each_other_and_nobody_else_does() -> None:
    policy = render(CLUSTER)[POLICY]["spec"]
    assert all(selects(policy["podSelector"]["matchLabels"], render(CLUSTER)[own]) for own in BOTH)
    open_to_all_ports = [rule["from"] for rule in policy["ingress"] if "ports" not in rule]
    assert open_to_all_ports == [[{"podSelector": policy["podSelector"]}]]
    assert {"to": [{"podSelector": policy["podSelector"]}]} in policy["egress"]


def test_a_change_of_settings_does_not_end_the_head() -> None:
    """All engines would start anew."""
    before, after = render(CLUSTER), render(CLUSTER, {"settings": {"queue_limit": 5000}})
    assert before[DEPLOYMENT] != after[DEPLOYMENT]
    assert before[HEAD] == after[HEAD]


def test_only_engines_have_the_database_and_the_master_key() -> None:
    objects = render(CLUSTER, {"encryption": {"existingSecret": "m"}})
    secrets = {
        own: {v["secret"]["secretName"] for v in place(objects[own], f"{POD}/volumes") if "secret" in v} for own in BOTH
    }
    assert secrets == {DEPLOYMENT: {"keys", "m", "db", "t"}, COMPRESS: {"keys", "t"}, HEAD: {"t"}}


@pytest.mark.parametrize("part", [DEPLOYMENT, COMPRESS], ids=["serve", "compress"])
def test_the_server_takes_the_settings(part: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`incomes serve` starts the store, `incomes compress` only joins; both are told the same address."""
    objects = render(CLUSTER, {"cluster": {"gistStorage": "s3://b/g"}})
    config, secret = tmp_path / "settings.yaml", tmp_path / "secret"
    config.write_text(objects["ConfigMap", "r-incomes"]["data"]["settings.yaml"])
    for variable in place(objects[part], f"{MAIN}/env"):
        if variable["name"].endswith("_FILE"):
            content = "postgresql+psycopg://u:p@h/n" if "STORE" in variable["name"] else "acme:k1"
            (tmp_path / variable["name"]).write_text(content)
            monkeypatch.setenv(variable["name"], str(secret.with_name(variable["name"])))
    settings = load_settings(config, join=True if part == COMPRESS else None).settings
    assert (settings.ray_address, settings.gist_storage) == ("r-incomes-ray:6379", "s3://b/g")
    assert settings.edit_store.startswith("postgresql") is (part == DEPLOYMENT)
    port = objects["Service", "r-incomes-ray"]["spec"]["ports"][0]["port"]
    assert f"--address=r-incomes-ray:{port} " in place(objects[part], f"{MAIN}/command")[4]


def test_what_is_scaled_has_no_number_of_its_own() -> None:
    """A number in the manifest would undo KEDA's at each upgrade."""
    objects = render(SCALING)
    assert [own for own in BOTH if "replicas" in objects[own]["spec"]] == [HEAD]
    for scaled, target in ((SCALED, DEPLOYMENT), (SCALED_COMPRESS, COMPRESS)):
        assert objects[scaled]["spec"]["scaleTargetRef"]["name"] == target[1]


def test_keda_asks_for_metrics_that_are_there() -> None:
    objects = render(SCALING)
    engines, compressors = (place(objects[own], "spec/triggers/0/metadata/query") for own in (SCALED, SCALED_COMPRESS))
    assert [name for name in metrics_in(compressors) if not is_known(name)] == []
    vllm = importlib.util.find_spec("vllm")
    assert vllm is not None
    there = Path(vllm.submodule_search_locations[0], "v1/metrics/loggers.py").read_text()
    for name in ("vllm:num_requests_running", "vllm:num_requests_waiting"):
        assert name in engines
        assert f'"{name}"' in there
    assert 'service="r-incomes-admin"' in engines
    assert ADMIN[1] == "r-incomes-admin"


@pytest.mark.skipif(
    "INCOMES_CRDS" not in os.environ, reason="INCOMES_CRDS names no folder with KEDA's resource definitions"
)
def test_keda_takes_the_objects() -> None:
    for found in (render(SCALING)[SCALED], render(SCALING)[SCALED_COMPRESS]):
        validated(found, "keda.sh_scaledobjects.yaml")
        broken = merged(found, {"spec": {"cooldown": 5}})
        with pytest.raises(ValueError, match="cooldown"):
            validated(broken, "keda.sh_scaledobjects.yaml")


def test_the_file_of_values_is_a_cluster() -> None:
    found = next(values_of(path) for path in VALUE_FILES if path.stem == "cluster")
    assert {HEAD, COMPRESS, SCALED, SCALED_COMPRESS, PDB} <= set(render(found))
    assert yaml.safe_load(render(found)["ConfigMap", "r-incomes"]["data"]["settings.yaml"])["gist_storage"].startswith(
        "s3"
    )
