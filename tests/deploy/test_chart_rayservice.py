"""Mode rayservice: KubeRay's rules, Serve's configuration with what its two applications take, and who selects whom."""

from __future__ import annotations

import importlib
import json
import os
from typing import Any

import pytest
import yaml
from incomes_server.boot.compressors import CompressorArgs
from incomes_server.boot.endpoint import EndpointArgs
from incomes_server.boot.front import OtherEngine
from incomes_server.settings import load_settings
from pydantic import BaseModel, ValidationError

from tests.deploy.chart import Objects, merged, place, render, rendered
from tests.deploy.crd import validated
from tests.deploy.test_chart import (
    ADMIN,
    CLUSTER,
    INGRESS,
    INGRESS_ON,
    NVIDIA,
    PDB,
    PDB_ON,
    POLICY,
    RAYSERVICE,
    ROUTE,
    ROUTE_ON,
    SERVICE,
    pods_of_kuberay,
)  # fmt: skip

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:ray.*", "ignore:Using extra keyword:DeprecationWarning"
)

LEAST = {**CLUSTER, "cluster": {}, "mode": "rayservice"}
SCALED = merged(LEAST, {"autoscaling": {"enabled": True}})
TAKES: dict[str, type[BaseModel]] = {
    "incomes_server.boot.endpoint:build": EndpointArgs,
    "incomes_server.boot.compressors:build": CompressorArgs,
}
CONFIG = "spec/rayClusterConfig"


def serve_config(objects: Objects) -> dict[str, Any]:
    """Serve's part, which Kubernetes knows as a text."""
    found: dict[str, Any] = yaml.safe_load(objects[RAYSERVICE]["spec"]["serveConfigV2"])
    return found


def groups_of(objects: Objects) -> dict[str, dict[str, Any]]:
    """Worker groups by name."""
    return {group["groupName"]: group for group in place(objects[RAYSERVICE], f"{CONFIG}/workerGroupSpecs")}


def unknown_keys(model: type[BaseModel], data: dict[str, Any], where: str = "") -> list[str]:
    """Serve drops what it does not know. Applications are looked into; `args` are ours."""
    from ray.serve.schema import HTTPOptionsSchema, ServeApplicationSchema

    inner: dict[str, type[BaseModel]] = {"applications": ServeApplicationSchema, "http_options": HTTPOptionsSchema}
    unknown = [f"{where}{name}" for name in data if name not in model.model_fields]
    for name, kind in inner.items():
        found = data.get(name, [])
        for each in found if isinstance(found, list) else [found]:
            unknown += unknown_keys(kind, each, f"{where}{name}.")
    return unknown


@pytest.mark.parametrize("values", [LEAST, SCALED, merged(SCALED, NVIDIA)], ids=["fixed", "scaled", "gpu"])
def test_serve_takes_the_configuration_and_each_application_its_arguments(values: dict[str, Any]) -> None:
    from ray.serve.schema import ServeDeploySchema

    config = serve_config(render(values))
    ServeDeploySchema.model_validate(config)
    assert unknown_keys(ServeDeploySchema, config) == []
    takes = {
        "incomes_server.boot.endpoint:build": EndpointArgs,
        "incomes_server.boot.compressors:build": CompressorArgs,
    }
    for application in config["applications"]:
        takes[application["import_path"]].model_validate(application["args"])


def test_what_serve_does_not_know_is_found() -> None:
    from ray.serve.schema import ServeDeploySchema

    config = serve_config(render(SCALED))
    config["applications"][0]["route_prefx"] = "/"
    config["http_options"]["prt"] = 8000
    assert unknown_keys(ServeDeploySchema, config) == ["applications.route_prefx", "http_options.prt"]
    with pytest.raises(ValidationError, match="max_engine"):
        EndpointArgs.model_validate({**config["applications"][0]["args"], "max_engine": 3})


def test_bounds_of_serve_and_of_the_pods_are_the_same() -> None:
    """An engine takes the whole of a resource that a pod of its group has once, and no other has."""
    objects = render(SCALED, {"autoscaling": {"engines": {"min": 2, "max": 5}, "compressors": {"min": 1, "max": 3}}})
    engines, compressors = (each["args"] for each in serve_config(objects)["applications"])
    groups = groups_of(objects)
    for group, bounds, args in (
        ("engine", (engines["min_engines"], engines["max_engines"]), engines),
        ("compress", (compressors["min_compressors"], compressors["max_compressors"]), compressors),
    ):
        assert (groups[group]["minReplicas"], groups[group]["maxReplicas"]) == bounds
        assert json.loads(json.loads(groups[group]["rayStartParams"]["resources"])) == args["resources"]
    assert place(objects[RAYSERVICE], f"{CONFIG}/enableInTreeAutoscaling") is True


def test_without_autoscaling_the_numbers_are_those_of_the_values() -> None:
    objects = render(LEAST, {"replicaCount": 3, "compression": {"replicas": 2}})
    engines, compressors = (each["args"] for each in serve_config(objects)["applications"])
    assert (engines["min_engines"], engines["max_engines"]) == (3, 3)
    assert (compressors["min_compressors"], compressors["max_compressors"]) == (2, 2)
    assert "enableInTreeAutoscaling" not in objects[RAYSERVICE]["spec"]["rayClusterConfig"]
    assert [each["name"] for each in serve_config(render(LEAST))["applications"]] == ["engines"]
    assert list(groups_of(render(LEAST))) == ["engine"]


def test_what_the_values_say_arrives() -> None:
    values = {
        "vllmArgs": ["--dtype", "float32"],
        "settings": {"shutdown_timeout_s": 12},
        "autoscaling": {
            "cooldownSeconds": 77,
            "engines": {"runningRequests": 3},
            "compressors": {"waitingEdits": 2000000},
        },
        "cluster": {"token": {"existingSecret": "t"}},
    }
    objects = render(SCALED, NVIDIA, values)
    engines, compressors = (each["args"] for each in serve_config(objects)["applications"])
    assert engines["flags"] == compressors["flags"] == ["--dtype", "float32"]
    assert (engines["drain_s"], engines["requests_an_engine"], engines["num_gpus"]) == (12, 3, 1)
    assert (compressors["edits_a_compressor"], compressors["idle_s"], compressors["num_gpus"]) == (2000000, 77, 1)
    assert place(objects[RAYSERVICE], f"{CONFIG}/authOptions") == {"mode": "token", "secretName": "t"}
    assert place(objects[RAYSERVICE], f"{CONFIG}/autoscalerOptions/idleTimeoutSeconds") == 77


def test_kuberay_s_own_rules() -> None:
    """From its source: a token needs Ray 2.52, its services select by a label that must stay its own, and so on."""
    import ray

    for values in (LEAST, SCALED):
        cluster = place(render(values)[RAYSERVICE], CONFIG)
        assert cluster["rayVersion"] == ray.__version__
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        for group in groups:
            template = group["template"]
            assert "app.kubernetes.io/name" not in template["metadata"]["labels"]
            assert "command" not in template["spec"]["containers"][0]
            assert "restartPolicy" not in template["spec"]
        for group in cluster["workerGroupSpecs"]:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_every_proxy_has_what_sends_a_request_to_another_engine() -> None:
    for pod in pods_of_kuberay(render(SCALED)):
        path = place(pod, "containers/0/env/name=RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH/value")
        module, function = path.split(":")
        assert [each.cls for each in getattr(importlib.import_module(module), function)()] == [OtherEngine]


def test_services_and_routes_lead_to_engines() -> None:
    objects = render(SCALED, PDB_ON, INGRESS_ON, ROUTE_ON)
    assert SERVICE not in objects
    engine = place(groups_of(objects)["engine"], "template/metadata/labels")
    compress = place(groups_of(objects)["compress"], "template/metadata/labels")
    for selector in (objects[ADMIN]["spec"]["selector"], objects[PDB]["spec"]["selector"]["matchLabels"]):
        assert selector.items() <= engine.items()
        assert not selector.items() <= compress.items()
    assert objects[POLICY]["spec"]["podSelector"]["matchLabels"].items() <= compress.items()
    backend = place(objects[INGRESS], "spec/rules/0/http/paths/0/backend/service")
    assert backend == {"name": "r-incomes-serve-svc", "port": {"number": 8000}}
    assert place(objects[ROUTE], "spec/rules/0/backendRefs") == [{"name": "r-incomes-serve-svc", "port": 8000}]
    assert "wait rayservice/r-incomes" in rendered(SCALED)["incomes/templates/NOTES.txt"]


def test_the_engine_takes_the_settings(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address of the cluster, which has another name after each upgrade, comes from the replica."""
    objects = render(SCALED, {"cluster": {"gistStorage": "s3://b/g"}})
    config, url = tmp_path / "settings.yaml", tmp_path / "url"
    config.write_text(objects["ConfigMap", "r-incomes"]["data"]["settings.yaml"])
    url.write_text("postgresql+psycopg://u:p@h/n")
    assert "ray_address" not in yaml.safe_load(config.read_text())
    monkeypatch.setenv("INCOMES_EDIT_STORE_FILE", str(url))
    monkeypatch.setenv("INCOMES_API_KEYS", "acme:k1")
    monkeypatch.setenv("INCOMES_RAY_ADDRESS", "10.0.0.1:6379")
    settings = load_settings(config, port=1234).settings
    assert (settings.ray_address, settings.gist_storage, settings.host) == ("10.0.0.1:6379", "s3://b/g", "127.0.0.1")
    assert settings.engine_name.endswith("-1234"), "a name of its own, whichever replica had the pod before"


@pytest.mark.skipif("INCOMES_CRDS" not in os.environ, reason="INCOMES_CRDS names no folder with KubeRay's definitions")
@pytest.mark.parametrize("values", [LEAST, SCALED, merged(SCALED, NVIDIA)], ids=["fixed", "scaled", "gpu"])
def test_kuberay_takes_the_object(values: dict[str, Any]) -> None:
    found = render(values)[RAYSERVICE]
    validated(found, "ray.io_rayservices.yaml")
    pod: dict[str, Any] = {"headGroupSpec": {"template": {"spec": {"containerz": []}}}}
    for name, wrong in (("rayVersoin", {"rayVersoin": "2"}), ("containerz", pod)):
        with pytest.raises(ValueError, match=name):
            validated(merged(found, {"spec": {"rayClusterConfig": wrong}}), "ray.io_rayservices.yaml")
