"""Dashboard and alerts: every metric they name exists, every query parses, every runbook link has its chapter."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.chart import render
from tests.docs.test_documented import NAMES, literals
from tests.docs.test_tree import places

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "observability"
ALERTS, DASHBOARD = FOLDER / "alerts.yaml", FOLDER / "dashboard.json"
RUNBOOK = ROOT / "docs" / "runbook.md"
SUFFIX = re.compile(r"_(total|bucket|sum|count)$")
VARIABLES = {"$__rate_interval": "5m", "$job": ".*", "$instance": ".*"}


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel.get("targets", [])]


def metrics_in(text: str) -> set[str]:
    return set(re.findall(r"incomes:[a-z_]+", text))


@cache
def known() -> frozenset[str]:
    """Metrics in the code; it is read once, for that takes a second."""
    return frozenset(literals(NAMES["metrics"]))


def is_known(name: str) -> bool:
    return name in known() or SUFFIX.sub("", name) in known()


@pytest.mark.parametrize("text", [ALERTS.read_text(), DASHBOARD.read_text()], ids=["alerts", "dashboard"])
def test_every_metric_that_is_named_exists(text: str) -> None:
    assert metrics_in(text)
    assert [name for name in sorted(metrics_in(text)) if not is_known(name)] == []


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {SUFFIX.sub("", name) for name in metrics_in("\n".join(queries()))}
    assert sorted(known() - shown) == []


def test_the_check_finds_what_is_wrong() -> None:
    assert not is_known("incomes:no_such_metric")
    assert is_known("incomes:generations_total")


def test_every_alert_leads_to_its_chapter() -> None:
    links = {rule["alert"]: rule["annotations"]["runbook_url"] for rule in alerts()}
    assert {name for name, link in links.items() if not re.fullmatch(r"runbook\.html#[a-z-]+", link)} == set()
    assert {name for name, link in links.items() if link.partition("#")[2] not in places(RUNBOOK)} == set()
    text = RUNBOOK.read_text()
    assert [name for name in links if f"`{name}`" not in text] == []


def test_alerts_have_a_severity_and_say_what_is_wrong() -> None:
    assert {rule["labels"]["severity"] for rule in alerts()} <= {"critical", "warning"}
    assert all(rule["annotations"]["summary"] for rule in alerts())
    assert len({rule["alert"] for rule in alerts()}) == len(alerts())


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_the_chart_carries_both() -> None:
    objects = render({"prometheusRule": {"enabled": True}, "grafanaDashboard": {"enabled": True}})
    assert objects[("PrometheusRule", "r-incomes")]["spec"]["groups"][0]["rules"] == alerts()
    data = objects[("ConfigMap", "r-incomes-dashboard")]["data"]
    assert json.loads(data["incomes.json"]) == json.loads(DASHBOARD.read_text())


@pytest.fixture(scope="module")
def promtool() -> str:
    """Debian's package `prometheus` has it; CI fetches it (deploy/observability/promtool.sh)."""
    found = os.environ.get("PROMTOOL") or shutil.which("promtool")
    built = ROOT / "build" / "promtool"
    if found is None and built.is_file():
        found = str(built)
    if found is None:
        reason = "no promtool: queries and alerts are not checked; run deploy/observability/promtool.sh"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, cwd=FOLDER)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_takes_the_alerts(promtool: str) -> None:
    assert f"SUCCESS: {len(alerts())} rules found" in run(promtool, "check", "rules", ALERTS)


def test_alerts_fire_when_they_should(promtool: str) -> None:
    run(promtool, "test", "rules", FOLDER / "alerts_test.yaml")


def test_promtool_takes_every_query_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    rules = []
    for number, query in enumerate(queries()):
        for variable, value in VARIABLES.items():
            query = query.replace(variable, value)
        assert "$" not in query, query
        rules.append({"record": f"dashboard:{number}", "expr": query})
    file = tmp_path / "dashboard.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"SUCCESS: {len(rules)} rules found" in run(promtool, "check", "rules", file)


def test_the_format_of_the_exposition_is_prometheus_own(promtool: str) -> None:
    """`promtool check metrics` reads what the server writes; the colon in our names is its only complaint."""
    from incomes_server.api.http import metrics
    from prometheus_client import REGISTRY, generate_latest

    metrics.ROUTING.figures.observe(0.01, picks=1)
    done = subprocess.run(
        [promtool, "check", "metrics"], input=generate_latest(REGISTRY), capture_output=True, check=False
    )
    lines = (done.stdout + done.stderr).decode().splitlines()
    ours = [line for line in lines if line.startswith("incomes:")]
    assert ours, lines
    assert [line for line in ours if "should not contain ':'" not in line] == []
