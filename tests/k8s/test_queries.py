"""Every query of an alert, panel or autoscaler asks for metrics that real processes show.

Queries are parsed, and their metrics and labels looked up in pages that the real classes serve.
No Prometheus evaluates them here.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from echo_server import PROGRAM, endpoints
from k8s.manifests import DEPLOY, of_kind, overlay
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dnd.clients import CaptionerClient, EndpointPool
from dnd.jobs import STAGES
from dnd.profiles import CaptionSettings
from dnd.stack.valkey import free_port
from dnd_services.coordinator.migrate import migrate
from dnd_services.coordinator.record_metrics import RecordCollector
from dnd_services.coordinator.store import Store
from dnd_services.coordinator.worker_metrics import WorkerMetrics

MONITORING = DEPLOY / "components" / "monitoring"
RULES: list[dict[str, Any]] = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["spec"][
    "groups"
][0]["rules"]
PANELS: list[dict[str, Any]] = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
QUERIES = [rule["expr"] for rule in RULES] + [t["expr"] for p in PANELS for t in p["targets"]]
# Added by Prometheus to what it scrapes, by the PodMonitor.
TARGET_LABELS = {"pod", "namespace", "app_kubernetes_io_component"}
Labels = dict[str, set[str]]


def read_page(text: str) -> dict[str, Labels]:
    """Labels of each metric on a page, and their values."""
    found: dict[str, Labels] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return found


def scrape(port: int) -> dict[str, Labels]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        return read_page(page.read().decode())


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Labels]]:
    """What a server process, a worker and a record show."""
    folder = tmp_path_factory.mktemp("metrics")
    environ = {
        "DND_ARTIFACTS": str(folder / "store"),
        "DND_ENDPOINTS_FILE": str(folder / "endpoints.json"),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], env=os.environ | environ)
    store = Store(f"sqlite:///{folder}/record.db")
    try:
        where = endpoints(folder)
        client = CaptionerClient(EndpointPool("captioner", where["address"]))
        client.caption_images(["a cat"], CaptionSettings())
        worker, port = WorkerMetrics(), free_port()
        worker.measure("caption", lambda: 1)
        worker.serve("127.0.0.1", port)
        migrate(store)
        registry = CollectorRegistry()
        registry.register(RecordCollector(store, 60.0))
        server_port = int(where["metrics"].rpartition(":")[2].partition("/")[0])
        yield scrape(server_port) | scrape(port) | read_page(generate_latest(registry).decode())
    finally:
        store.close()
        process.send_signal(signal.SIGKILL)
        process.wait()


def selectors_in(expression: Any) -> Iterator[Any]:
    """All selectors of series in a parsed query."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        inner = getattr(expression, name, None)
        if inner is not None:
            yield from selectors_in(inner)
    for inner in getattr(expression, "args", None) or ():
        yield from selectors_in(inner)


def check(query: str, metrics: dict[str, Labels]) -> int:
    """Asserts that all series and labels of a query exist; how many series it asks for."""
    found = list(selectors_in(promql_parser.parse(query)))
    known = set(TARGET_LABELS) | {"le"}
    for selector in found:
        assert selector.name in metrics, f"{selector.name}: no process shows it"
        known |= set(metrics[selector.name])
        for matcher in selector.matchers.matchers:
            assert matcher.name in metrics[selector.name], f"{selector.name} has no {matcher.name}"
    for group in re.findall(r"\bby \(([^)]*)\)", query):
        assert {label.strip() for label in group.split(",")} <= known, query
    return len(found)


@pytest.mark.parametrize("query", QUERIES)
def test_query_asks_for_what_processes_show(query: str, metrics: dict[str, Labels]) -> None:
    assert check(query, metrics) >= 1


@pytest.mark.parametrize(
    "query", ["dnd_nothing", 'dnd_rpcs_total{colour="red"}', "sum by (x) (dnd_jobs)"]
)
def test_wrong_query_is_found(query: str, metrics: dict[str, Labels]) -> None:
    with pytest.raises(AssertionError):
        check(query, metrics)


def test_autoscalers_read_values_that_the_coordinator_shows(metrics: dict[str, Labels]) -> None:
    for one in of_kind(overlay("gpu"), "ScaledObject"):
        for trigger in one["spec"]["triggers"]:
            check(trigger["metadata"]["valueLocation"], metrics)
    assert metrics["dnd_backlog_seconds"]["stage"] == set(STAGES)


def test_every_alert_has_its_runbook() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    headings = {line.lstrip("# ").lower() for line in text.splitlines() if line.startswith("### ")}
    assert {rule["alert"].lower() for rule in RULES} <= headings
    for rule in RULES:
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
