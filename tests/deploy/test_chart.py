"""The Helm chart: lint, schema, refusals, each value's effect, and the schemas of every supported Kubernetes."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import kubernetes_validate
import pytest
import yaml
from helm_python import HelmRenderError, HelmValuesError, lint
from incomes_server.boot.startup import STOP_S
from incomes_server.settings import load_settings

from tests.deploy.chart import (
    CHART,
    LEAST,
    VALUE_FILES,
    Objects,
    chart,
    defaults,
    leaves,
    merged,
    nested,
    objects_of,
    place,
    render,
    rendered,
)

CORE = re.compile(r"^(v1|apps/v1|policy/v1|networking\.k8s\.io/v1)$")
KUBERNETES = [kubernetes_validate.utils.major_minor(v) for v in kubernetes_validate.utils.all_versions()]
OLDEST = "1.27"
SUPPORTED = [version for version in KUBERNETES if int(version.split(".")[1]) >= int(OLDEST.split(".")[1])]

DEPLOYMENT = ("Deployment", "r-incomes")
SERVICE, ADMIN = ("Service", "r-incomes"), ("Service", "r-incomes-admin")
EDITS, CACHE = ("PersistentVolumeClaim", "r-incomes-edits"), ("PersistentVolumeClaim", "r-incomes-cache")
POLICY = ("NetworkPolicy", "r-incomes")
INGRESS, ROUTE, PDB = ("Ingress", "r-incomes"), ("HTTPRoute", "r-incomes"), ("PodDisruptionBudget", "r-incomes")
RAYSERVICE = ("RayService", "r-incomes")
MONITOR, RULE = ("ServiceMonitor", "r-incomes"), ("PrometheusRule", "r-incomes")
DASHBOARD = ("ConfigMap", "r-incomes-dashboard")
ACCOUNT = ("ServiceAccount", "r-incomes")
POD = "spec/template/spec"
MAIN = f"{POD}/containers/0"

HEAD, COMPRESS = ("Deployment", "r-incomes-ray"), ("Deployment", "r-incomes-compress")
SCALED, SCALED_COMPRESS = ("ScaledObject", "r-incomes"), ("ScaledObject", "r-incomes-compress")
POSTGRESQL = {"database": {"kind": "postgresql", "existingSecret": "db"}}
NVIDIA = {"accelerator": "nvidia"}
INGRESS_ON = {"ingress": {"enabled": True, "host": "h.example"}}
ROUTE_ON = {"httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}]}}
MONITOR_ON = {"serviceMonitor": {"enabled": True}}
CLUSTER = {
    **POSTGRESQL,
    "cluster": {"enabled": True, "token": {"existingSecret": "t"}},
    "persistence": {"cache": {"enabled": False}},
}
SCALING = merged(CLUSTER, MONITOR_ON, {"autoscaling": {"enabled": True, "prometheus": "http://p:9"}})
RULE_ON = {"prometheusRule": {"enabled": True}}
DASHBOARD_ON = {"grafanaDashboard": {"enabled": True}}
PDB_ON = {"podDisruptionBudget": {"enabled": True}}
TRACING_ON = {"tracing": {"enabled": True, "endpoint": "http://c:4318"}}
PEER = [{"podSelector": {"matchLabels": {"a": "b"}}}]
NODES = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}

# value -> (new value, what else has to be set, object, place, what has to stand there)
SMALL = {"cpu": "1", "memory": "1Gi"}
EFFECTS: dict[str, tuple[Any, dict[str, Any], tuple[str, str], str, Any]] = {
    "mode": ("rayservice", CLUSTER, RAYSERVICE, "spec/rayClusterConfig/headGroupSpec/rayStartParams/num-cpus", "0"),
    "replicaCount": (3, CLUSTER, DEPLOYMENT, "spec/replicas", 3),
    "cluster.enabled": (
        True, {**CLUSTER, "cluster": {"token": {"existingSecret": "t"}}}, HEAD, f"{MAIN}/args/1", "--head",
    ),
    "cluster.token.existingSecret": ("o", CLUSTER, HEAD, f"{POD}/volumes/name=ray-token/secret/secretName", "o"),
    "cluster.token.key": (
        "k", CLUSTER, COMPRESS, f"{MAIN}/env/name=RAY_AUTH_TOKEN_PATH/value", "/run/secrets/incomes-ray/k",
    ),
    "cluster.gistStorage": ("s3://b/g", CLUSTER, DEPLOYMENT, "metadata/name", "r-incomes"),
    "cluster.head.resources.requests": (SMALL, CLUSTER, HEAD, f"{MAIN}/resources/requests", SMALL),
    "cluster.head.resources.limits": (SMALL, CLUSTER, HEAD, f"{MAIN}/resources/limits", SMALL),
    "compression.replicas": (2, CLUSTER, COMPRESS, "spec/replicas", 2),
    "compression.resources.requests": (SMALL, CLUSTER, COMPRESS, f"{MAIN}/resources/requests", SMALL),
    "compression.resources.limits": (SMALL, CLUSTER, COMPRESS, f"{MAIN}/resources/limits", SMALL),
    "autoscaling.enabled": (
        True, merged(SCALING, {"autoscaling": {"enabled": False}}), SCALED, "spec/scaleTargetRef/name", "r-incomes",
    ),
    "autoscaling.prometheus": (
        "http://q:9", SCALING, SCALED, "spec/triggers/0/metadata/serverAddress", "http://q:9",
    ),
    "autoscaling.engines.min": (2, SCALING, SCALED, "spec/minReplicaCount", 2),
    "autoscaling.engines.max": (9, SCALING, SCALED, "spec/maxReplicaCount", 9),
    "autoscaling.engines.runningRequests": (5, SCALING, SCALED, "spec/triggers/0/metadata/threshold", "5"),
    "autoscaling.compressors.min": (1, SCALING, SCALED_COMPRESS, "spec/minReplicaCount", 1),
    "autoscaling.compressors.max": (9, SCALING, SCALED_COMPRESS, "spec/maxReplicaCount", 9),
    "autoscaling.compressors.waitingEdits": (5, SCALING, SCALED_COMPRESS, "spec/triggers/0/metadata/threshold", "5"),
    "autoscaling.cooldownSeconds": (7, SCALING, SCALED, "spec/cooldownPeriod", 7),
    "image.repository": ("x.example/y", {}, DEPLOYMENT, f"{MAIN}/image", "x.example/y:0.1.0-cpu"),
    "image.tag": ("7", {}, DEPLOYMENT, f"{MAIN}/image", "registry.example/incomes:7"),
    "image.digest": (
        f"sha256:{'a' * 64}", {"image": {"tag": "7"}}, DEPLOYMENT, f"{MAIN}/image",
        f"registry.example/incomes@sha256:{'a' * 64}",
    ),
    "image.pullPolicy": ("Always", {}, DEPLOYMENT, f"{MAIN}/imagePullPolicy", "Always"),
    "imagePullSecrets": ([{"name": "p"}], {}, DEPLOYMENT, f"{POD}/imagePullSecrets", [{"name": "p"}]),
    "accelerator": ("nvidia", {}, DEPLOYMENT, f"{MAIN}/image", "registry.example/incomes:0.1.0-cuda"),
    "gpu.resource": ("x.com/gpu", NVIDIA, DEPLOYMENT, f"{MAIN}/resources/limits", {"memory": "12Gi", "x.com/gpu": 1}),
    "gpu.runtimeClassName": ("nvidia", NVIDIA, DEPLOYMENT, f"{POD}/runtimeClassName", "nvidia"),
    "gpu.tolerations": ([{"key": "g"}], NVIDIA, DEPLOYMENT, f"{POD}/tolerations", [{"key": "g"}]),
    "settings": ({"shutdown_timeout_s": 7.5}, {}, DEPLOYMENT, f"{POD}/terminationGracePeriodSeconds", 33),
    "vllmArgs": (
        ["--dtype", "float32"], {}, DEPLOYMENT, f"{MAIN}/args",
        ["serve", "--config", "/etc/incomes/settings.yaml", "--", "--dtype", "float32"],
    ),
    "apiKeys.existingSecret": ("s", {}, DEPLOYMENT, f"{POD}/volumes/name=api-keys/secret/secretName", "s"),
    "apiKeys.key": (
        "k", {}, DEPLOYMENT, f"{MAIN}/env/name=INCOMES_API_KEYS_FILE/value", "/run/secrets/incomes/k",
    ),
    "encryption.existingSecret": (
        "master", {}, DEPLOYMENT, f"{POD}/volumes/name=encryption/secret/secretName", "master",
    ),
    "encryption.key": (
        "k", {"encryption": {"existingSecret": "master"}}, DEPLOYMENT,
        f"{MAIN}/env/name=INCOMES_ENCRYPTION_KEY_FILE/value", "/run/secrets/incomes-encryption/k",
    ),
    "database.kind": (
        "postgresql", {"database": {"existingSecret": "db"}}, DEPLOYMENT,
        f"{POD}/volumes/name=store-url/secret/secretName", "db",
    ),
    "database.existingSecret": (
        "other", POSTGRESQL, DEPLOYMENT, f"{POD}/volumes/name=store-url/secret/secretName", "other",
    ),
    "database.key": (
        "uri", POSTGRESQL, DEPLOYMENT, f"{MAIN}/env/name=INCOMES_EDIT_STORE_FILE/value",
        "/run/secrets/incomes-store/uri",
    ),
    "database.port": (6432, POSTGRESQL, POLICY, "spec/egress/1/ports/0/port", 6432),
    "persistence.edits.size": ("1Gi", {}, EDITS, "spec/resources/requests/storage", "1Gi"),
    "persistence.edits.storageClassName": ("fast", {}, EDITS, "spec/storageClassName", "fast"),
    "persistence.edits.existingClaim": (
        "c", {}, DEPLOYMENT, f"{POD}/volumes/name=edits/persistentVolumeClaim/claimName", "c",
    ),
    "persistence.edits.keep": (False, {}, EDITS, "metadata", ...),
    "persistence.cache.enabled": (False, {}, DEPLOYMENT, f"{POD}/volumes/name=cache/emptyDir/sizeLimit", "20Gi"),
    "persistence.cache.size": ("1Gi", {}, CACHE, "spec/resources/requests/storage", "1Gi"),
    "persistence.cache.storageClassName": ("fast", {}, CACHE, "spec/storageClassName", "fast"),
    "persistence.cache.accessMode": ("ReadWriteMany", {}, CACHE, "spec/accessModes", ["ReadWriteMany"]),
    "persistence.cache.existingClaim": (
        "c", {}, DEPLOYMENT, f"{POD}/volumes/name=cache/persistentVolumeClaim/claimName", "c",
    ),
    "resources.requests": (
        {"cpu": "9", "memory": "1Gi"}, {}, DEPLOYMENT, f"{MAIN}/resources/requests", {"cpu": "9", "memory": "1Gi"},
    ),
    "resources.limits": ({"memory": "99Gi"}, {}, DEPLOYMENT, f"{MAIN}/resources/limits", {"memory": "99Gi"}),
    "sharedMemory": ("3Gi", {}, DEPLOYMENT, f"{POD}/volumes/name=shm/emptyDir/sizeLimit", "3Gi"),
    "tmpSize": ("3Gi", {}, DEPLOYMENT, f"{POD}/volumes/name=tmp/emptyDir/sizeLimit", "3Gi"),
    "strategy": (
        "RollingUpdate", POSTGRESQL, DEPLOYMENT, "spec/strategy/rollingUpdate", {"maxSurge": 1, "maxUnavailable": 0},
    ),
    "drainSeconds": (21, {}, DEPLOYMENT, f"{MAIN}/lifecycle/preStop/exec/command", ["sleep", "21"]),
    "startupSeconds": (61, {}, DEPLOYMENT, f"{MAIN}/startupProbe/failureThreshold", 13),
    "service.type": ("NodePort", {}, SERVICE, "spec/type", "NodePort"),
    "service.chatPort": (80, {}, SERVICE, "spec/ports/0/port", 80),
    "service.annotations": ({"a": "b"}, {}, SERVICE, "metadata/annotations", {"a": "b"}),
    "adminService.port": (81, {}, ADMIN, "spec/ports/0/port", 81),
    "adminService.annotations": ({"a": "b"}, {}, ADMIN, "metadata/annotations", {"a": "b"}),
    "ingress.enabled": (True, {"ingress": {"host": "h.example"}}, INGRESS, "spec/rules/0/http/paths/0/path", "/v1"),
    "ingress.className": ("nginx", INGRESS_ON, INGRESS, "spec/ingressClassName", "nginx"),
    "ingress.annotations": ({"a": "b"}, INGRESS_ON, INGRESS, "metadata/annotations", {"a": "b"}),
    "ingress.host": ("i.example", INGRESS_ON, INGRESS, "spec/rules/0/host", "i.example"),
    "ingress.tlsSecret": ("t", INGRESS_ON, INGRESS, "spec/tls", [{"hosts": ["h.example"], "secretName": "t"}]),
    "httpRoute.enabled": (
        True, {"httpRoute": {"parentRefs": [{"name": "g"}]}}, ROUTE, "spec/rules/0/matches/0/path",
        {"type": "PathPrefix", "value": "/v1"},
    ),
    "httpRoute.annotations": ({"a": "b"}, ROUTE_ON, ROUTE, "metadata/annotations", {"a": "b"}),
    "httpRoute.hostnames": (["h.example"], ROUTE_ON, ROUTE, "spec/hostnames", ["h.example"]),
    "httpRoute.parentRefs": ([{"name": "o"}], ROUTE_ON, ROUTE, "spec/parentRefs", [{"name": "o"}]),
    "serviceAccount.create": (False, {}, DEPLOYMENT, f"{POD}/serviceAccountName", "default"),
    "serviceAccount.name": ("own", {}, DEPLOYMENT, f"{POD}/serviceAccountName", "own"),
    "serviceAccount.annotations": ({"a": "b"}, {}, ACCOUNT, "metadata/annotations", {"a": "b"}),
    "networkPolicy.enabled": (False, {}, DEPLOYMENT, "metadata/name", "r-incomes"),
    "networkPolicy.chatFrom": (PEER, {}, POLICY, "spec/ingress/0/from", PEER),
    "networkPolicy.adminFrom": (PEER, {}, POLICY, "spec/ingress/1/from", PEER),
    "networkPolicy.metricsFrom": (PEER, {}, POLICY, "spec/ingress/1/from/1", PEER[0]),
    "networkPolicy.operatorFrom": (PEER, {**CLUSTER, "mode": "rayservice"}, POLICY, "spec/ingress/2/from", PEER),
    "networkPolicy.egressToHttps": (False, {}, POLICY, "spec/egress", ...),
    "networkPolicy.egress": ([{"to": PEER}], {}, POLICY, "spec/egress/2", {"to": PEER}),
    "podDisruptionBudget.enabled": (True, {}, PDB, "spec/minAvailable", 1),
    "podDisruptionBudget.minAvailable": (0, PDB_ON, PDB, "spec/minAvailable", 0),
    "serviceMonitor.enabled": (True, {}, MONITOR, "spec/endpoints/0/port", "admin"),
    "serviceMonitor.interval": ("1m", MONITOR_ON, MONITOR, "spec/endpoints/0/interval", "1m"),
    "serviceMonitor.scrapeTimeout": ("7s", MONITOR_ON, MONITOR, "spec/endpoints/0/scrapeTimeout", "7s"),
    "serviceMonitor.labels": ({"a": "b"}, MONITOR_ON, MONITOR, "metadata/labels/a", "b"),
    "prometheusRule.enabled": (True, {}, RULE, "spec/groups/0/name", "incomes"),
    "prometheusRule.labels": ({"a": "b"}, RULE_ON, RULE, "metadata/labels/a", "b"),
    "grafanaDashboard.enabled": (True, {}, DASHBOARD, "metadata/labels/grafana_dashboard", "1"),
    "grafanaDashboard.labels": ({"a": "b"}, DASHBOARD_ON, DASHBOARD, "metadata/labels/a", "b"),
    "tracing.enabled": (
        True, {"tracing": {"endpoint": "http://c:4318"}}, DEPLOYMENT, f"{MAIN}/env/name=OTEL_SERVICE_NAME/value",
        "r-incomes",
    ),
    "tracing.endpoint": (
        "http://d:9", TRACING_ON, DEPLOYMENT, f"{MAIN}/env/name=OTEL_EXPORTER_OTLP_ENDPOINT/value", "http://d:9",
    ),
    "tracing.protocol": ("grpc", TRACING_ON, DEPLOYMENT, f"{MAIN}/env/name=OTEL_EXPORTER_OTLP_PROTOCOL/value", "grpc"),
    "tracing.sampler": (
        "always_on", TRACING_ON, DEPLOYMENT, f"{MAIN}/env/name=OTEL_TRACES_SAMPLER/value", "always_on",
    ),
    "tracing.samplerArg": ("0.5", TRACING_ON, DEPLOYMENT, f"{MAIN}/env/name=OTEL_TRACES_SAMPLER_ARG/value", "0.5"),
    "podAnnotations": ({"a": "b"}, {}, DEPLOYMENT, "spec/template/metadata/annotations/a", "b"),
    "podLabels": ({"a": "b"}, {}, DEPLOYMENT, "spec/template/metadata/labels/a", "b"),
    "nodeSelector": ({"a": "b"}, {}, DEPLOYMENT, f"{POD}/nodeSelector", {"a": "b"}),
    "tolerations": ([{"key": "t"}], {}, DEPLOYMENT, f"{POD}/tolerations", [{"key": "t"}]),
    "affinity": (NODES, {}, DEPLOYMENT, f"{POD}/affinity", NODES),
    "priorityClassName": ("p", {}, DEPLOYMENT, f"{POD}/priorityClassName", "p"),
    "extraEnv": ([{"name": "E", "value": "1"}], {}, DEPLOYMENT, f"{MAIN}/env/name=E/value", "1"),
    "nameOverride": ("x", {}, ("Deployment", "r-x"), "metadata/name", "r-x"),
    "fullnameOverride": ("x", {}, ("Deployment", "x"), "metadata/name", "x"),
}  # fmt: skip
REFUSALS: dict[str, dict[str, Any]] = {
    "replicaCount above 1, compression.replicas and autoscaling need cluster.enabled": {"replicaCount": 2},
    "several engines share an edit store in PostgreSQL": {"cluster": {"enabled": True}},
    "cluster.token.existingSecret is empty": merged(CLUSTER, {"cluster": {"token": {"existingSecret": ""}}}),
    "persistence.cache is a claim for one node": merged(CLUSTER, {"persistence": {"cache": {"enabled": True}}}),
    "autoscaling.prometheus is empty": merged(SCALING, {"autoscaling": {"prometheus": ""}}),
    "autoscaling needs serviceMonitor.enabled": merged(SCALING, {"serviceMonitor": {"enabled": False}}),
    "autoscaling.engines: min is above max": merged(SCALING, {"autoscaling": {"engines": {"min": 5}}}),
    "image.repository is empty": {"image": {"repository": ""}},
    "apiKeys.existingSecret is empty": {"apiKeys": {"existingSecret": ""}},
    "database.existingSecret is empty": {"database": {"kind": "postgresql"}},
    "strategy RollingUpdate is refused with database.kind sqlite": {"strategy": "RollingUpdate"},
    "ingress.host is empty": {"ingress": {"enabled": True}},
    "httpRoute.parentRefs is empty": {"httpRoute": {"enabled": True}},
    "tracing.endpoint is empty": {"tracing": {"enabled": True}},
}
BROKEN: dict[str, dict[str, Any]] = {
    "a name that is not there": {"replicas": 3},
    "a setting that is not there": {"settings": {"shutdown_timeout": 3}},
    "a setting that the chart sets": {"settings": {"port": 9000}},
    "a setting of the wrong type": {"settings": {"queue_limit": "many"}},
    "a setting out of bounds": {"settings": {"compression_batch": 0}},
    "an unpinned image": {"image": {"tag": "latest"}},
    "half a digest": {"image": {"digest": "sha256:abc"}},
    "an unknown mode": {"mode": "statefulset"},
    "an unknown store": {"database": {"kind": "mysql"}},
    "a quantity without a meaning": {"persistence": {"edits": {"size": "ten"}}},
    "text for a flag": {"ingress": {"enabled": "yes"}},
    "no grace": {"settings": {"shutdown_timeout_s": None}},
    "a key in place of its secret": {"apiKeys": {"value": "acme:k1"}},
    "half an engine": {"replicaCount": 1.5},
    "a storage without a protocol": {"cluster": {"gistStorage": "bucket"}},
    "a claim of nobody's": {"persistence": {"cache": {"accessMode": "ReadOnlyMany"}}},
    "scaling by what it does not know": {"autoscaling": {"engines": {"cpu": 80}}},
    "nobody may come in": {"networkPolicy": {"chatFrom": []}},
}


def pods_of_kuberay(objects: Objects) -> list[dict[str, Any]]:
    """The specification of the head, and of a pod of each worker group."""
    found = objects.get(RAYSERVICE)
    if found is None:
        return []
    cluster = found["spec"]["rayClusterConfig"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def pods_of(objects: Objects) -> list[dict[str, Any]]:
    """The specification of each pod."""
    deployed = [place(found, POD) for (kind, _), found in objects.items() if kind == "Deployment"]
    return deployed + pods_of_kuberay(objects)


@pytest.fixture(autouse=True)
def schemas_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The validator reads megabytes of definitions for each object, and changes none of it."""
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", read_schema)


read_schema = cache(kubernetes_validate.utils.schema_contents)


def values_of(path: Any) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(path.read_text())
    return values


def test_eight_files_of_values_and_the_base() -> None:
    assert len(VALUE_FILES) == 9


@pytest.mark.parametrize("path", VALUE_FILES, ids=lambda path: path.stem)
def test_lint_finds_nothing(path: Any) -> None:
    report = lint(CHART, merged(LEAST, values_of(path)), strict=True, kube_version=f"v{OLDEST}.0", namespace="n")
    said = [m for m in report["messages"] if m["severity"] > 1]
    assert (said, report["errors"]) == ([], [])


@pytest.mark.parametrize("version", SUPPORTED)
@pytest.mark.parametrize("path", VALUE_FILES, ids=lambda path: path.stem)
def test_kubernetes_takes_every_object(path: Any, version: str) -> None:
    objects = render(values_of(path))
    core = [o for o in objects.values() if CORE.match(o["apiVersion"])]
    core += [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": pod} for pod in pods_of_kuberay(objects)
    ]
    assert len(core) >= 6
    for found in core:
        kubernetes_validate.validate(found, version, strict=True)


def test_the_validation_finds_what_is_wrong() -> None:
    found = render()[DEPLOYMENT]
    found["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(found, SUPPORTED[0], strict=True)


def test_the_oldest_version_is_what_the_chart_says() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"] == f">={OLDEST}.0-0"


def test_every_value_has_a_test() -> None:
    assert {*leaves(defaults())} == set(EFFECTS)


@pytest.mark.parametrize("value", EFFECTS)
def test_each_value_changes_what_it_should(value: str) -> None:
    new, needs, key, path, wanted = EFFECTS[value]
    before, after = rendered(needs), rendered(needs, nested(value, new))
    assert {**before} != {**after}, f"{value} changes nothing"
    if wanted is not ...:  # something is gone: see the next test
        assert place(objects_of(after)[key], path) == wanted


def test_what_is_switched_off_is_gone() -> None:
    assert "annotations" not in render({"persistence": {"edits": {"keep": False}}})[EDITS]["metadata"]
    assert POLICY not in render({"networkPolicy": {"enabled": False}})
    closed = render({"networkPolicy": {"egressToHttps": False}})[POLICY]["spec"]["egress"]
    assert [port["port"] for rule in closed for port in rule["ports"]] == [53, 53]
    assert EDITS not in render(POSTGRESQL)
    assert {INGRESS, ROUTE, PDB, MONITOR, RULE, DASHBOARD} & set(render()) == set()


@pytest.mark.parametrize("sentence", REFUSALS)
def test_what_cannot_work_is_refused_with_a_sentence(sentence: str) -> None:
    with pytest.raises(HelmRenderError, match=re.escape(sentence)):
        render(REFUSALS[sentence])


@pytest.mark.parametrize("what", BROKEN)
def test_the_schema_refuses(what: str) -> None:
    chart().validate_schema(LEAST)
    with pytest.raises(HelmValuesError):
        chart().validate_schema(merged(LEAST, BROKEN[what]))


@pytest.mark.parametrize(
    "path", [path for path in VALUE_FILES if path.stem not in ("cluster", "rayservice")], ids=lambda path: path.stem
)
def test_the_server_takes_the_settings(path: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rendered settings file with the pod's variables is what `incomes serve` reads."""
    objects = render(values_of(path))
    config = tmp_path / "settings.yaml"
    config.write_text(next(o for (kind, _), o in objects.items() if kind == "ConfigMap")["data"]["settings.yaml"])
    secret = tmp_path / "secret"
    for variable in place(objects[DEPLOYMENT], f"{MAIN}/env"):
        if variable["name"].endswith("_FILE"):
            monkeypatch.setenv(variable["name"], str(secret))
        elif "value" in variable:
            monkeypatch.setenv(variable["name"], variable["value"])
    secret.write_text("acme:k1")
    settings = load_settings(config).settings
    assert (settings.host, settings.port, settings.admin_port) == ("0.0.0.0", 8000, 8001)
    assert [key.project for key in settings.api_keys] == ["acme"]


def test_large_numbers_stay_numbers() -> None:
    """Helm would write 1000000 as 1e+06, which YAML takes for a text and the server refuses."""
    numbers = {"pool_bytes": 68719476736, "max_edits_per_project": 1000000, "max_wait_s": 0.5, "shutdown_timeout_s": 20}
    text = render({"settings": numbers})[("ConfigMap", "r-incomes")]["data"]["settings.yaml"]
    found = yaml.safe_load(text)
    assert {name: found[name] for name in numbers} == numbers


def test_the_grace_period_covers_the_end_of_the_server() -> None:
    """Drain, running answers, and the time after which the server ends itself whatever hangs."""
    values = {"drainSeconds": 20, "settings": {"shutdown_timeout_s": 40}}
    pod = place(render(values)[DEPLOYMENT], POD)
    assert pod["terminationGracePeriodSeconds"] > 20 + 40 + STOP_S
    assert place(pod, "containers/0/lifecycle/preStop/exec/command") == ["sleep", "20"]


def test_a_single_writer_is_never_two() -> None:
    """SQLite is one file; a second server has a list of replicas of its own. Both need one pod at a time."""
    spec = render()[DEPLOYMENT]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert render(POSTGRESQL)[DEPLOYMENT]["spec"]["strategy"] == {"type": "Recreate"}
    assert render()[EDITS]["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_probes_ask_what_the_server_answers() -> None:
    main = place(render()[DEPLOYMENT], MAIN)
    probes = {name: main[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert probes == {"startupProbe": "/livez", "readinessProbe": "/readyz", "livenessProbe": "/livez"}


@pytest.mark.parametrize("path", VALUE_FILES, ids=lambda path: path.stem)
def test_no_pod_is_more_than_it_needs(path: Any) -> None:
    pods = pods_of(render(values_of(path)))
    assert pods
    for pod in pods:
        main = pod["containers"][0]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert main["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        is_autoscaler = pod["automountServiceAccountToken"]
        assert not is_autoscaler or main["name"] == "ray-head", "only Ray's autoscaler asks the API server"
        assert "limits" in main["resources"]
        mounted = {mount["name"] for mount in main["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        assert re.search(r":[\w][\w.-]*$|@sha256:[0-9a-f]{64}$", main["image"])
        assert not main["image"].endswith(":latest")


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("http://c:4318", 4318), ("http://c.m:4317/v1", 4317), ("https://c.example/otlp", 443), ("http://c.example", 80)],
)
def test_the_collector_may_be_reached(endpoint: str, port: int) -> None:
    egress = render({"tracing": {"enabled": True, "endpoint": endpoint}})[POLICY]["spec"]["egress"]
    assert egress[-1] == {"ports": [{"port": port, "protocol": "TCP"}]}


def test_secrets_are_named_never_held() -> None:
    """No object holds a key: secrets come by reference, and the chart makes none."""
    texts = rendered(POSTGRESQL)
    assert not any(kind == "Secret" for kind, _ in objects_of(texts))
    assert "INCOMES_API_KEYS\n" not in "".join(texts.values())


def test_only_v1_of_the_chat_port_is_exposed() -> None:
    """/metrics has totals over all projects, and the admin port changes knowledge: neither leaves the cluster."""
    objects = render(INGRESS_ON, ROUTE_ON)
    paths = place(objects[INGRESS], "spec/rules/0/http/paths")
    assert [(p["path"], p["backend"]["service"]) for p in paths] == [
        ("/v1", {"name": "r-incomes", "port": {"name": "chat"}})
    ]
    assert place(objects[ROUTE], "spec/rules/0/backendRefs") == [{"name": "r-incomes", "port": 8000}]
    assert render({"service": {"type": "LoadBalancer"}})[ADMIN]["spec"]["type"] == "ClusterIP"


def test_notes_say_how_to_go_on() -> None:
    notes = rendered(POSTGRESQL, {"strategy": "RollingUpdate"})["incomes/templates/NOTES.txt"]
    assert "rollout status deployment/r-incomes" in notes
    assert "up to two seconds later" in notes


def test_the_schema_names_every_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert {*defaults()} | {"global"} == set(schema["properties"])
