"""Every query of an alert, panel or autoscaler asks for metrics that real processes show.

Queries are parsed, and their metrics and labels looked up in the pages of a coordinator, a worker
and stage services after a job. Where a Prometheus is installed, it scrapes them, and computes all
queries.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from coordinator_stack import SPEC, finish, wait_until
from k8s.manifests import DEPLOY, of_kind, overlay
from observed import watched_stack
from prometheus_client.parser import text_string_to_metric_families

from dnd.jobs import STAGES
from dnd.stack.valkey import free_port

MONITORING = DEPLOY / "components" / "monitoring"
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
GROUPS: list[dict[str, Any]] = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["spec"][
    "groups"
]
RULES: list[dict[str, Any]] = GROUPS[0]["rules"]
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


@dataclass(frozen=True)
class Scraped:
    """What processes have shown after a job.

    Attributes:
        pages: Labels of each metric, and their values.
        prometheus: URL of a Prometheus that has scraped them all along; empty without one.
    """

    pages: dict[str, Labels]
    prometheus: str


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """A coordinator, a worker and stage services, one of whose calls has failed."""
    folder = tmp_path_factory.mktemp("metrics")
    with (
        watched_stack(folder, {"FAIL_ONCE": "CaptionImages"}) as stack,
        scraping(folder, stack.metrics_ports()) as prometheus,
        stack.client("default") as client,
    ):
        finish(client, client.create_job(SPEC).id)
        pages: dict[str, Labels] = {}
        for port in stack.metrics_ports().values():
            pages |= scrape(port)
        if prometheus:
            wait_for_scrapes(prometheus)
        yield Scraped(pages, prometheus)


@pytest.fixture
def metrics(scraped: Scraped) -> dict[str, Labels]:
    return scraped.pages


@pytest.fixture
def prometheus(scraped: Scraped) -> str:
    if not scraped.prometheus:
        pytest.skip("Prometheus is not installed (Debian: prometheus); PyPI has none")
    return scraped.prometheus


@contextmanager
def scraping(folder: Path, ports: Mapping[str, int]) -> Iterator[str]:
    """A Prometheus with our alerts that scrapes pages on loopback; its URL, "" if there is none."""
    if shutil.which("prometheus") is None:
        yield ""
        return
    often = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
    targets = [
        {
            "targets": [f"127.0.0.1:{port}"],
            "labels": {"app_kubernetes_io_component": name, "pod": name, "namespace": "dnd"},
        }
        for name, port in ports.items()
    ]
    (folder / "alerts.yaml").write_text(yaml.safe_dump({"groups": GROUPS}))
    config = {
        "global": often,
        "rule_files": [str(folder / "alerts.yaml")],
        "scrape_configs": [{"job_name": "dnd", "static_configs": targets}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    process = subprocess.Popen(command)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def ask(prometheus: str, path: str, **parameters: str) -> Any:
    """What Prometheus answers; None while it is not up, or cannot."""
    url = f"{prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=10) as page:
            return json.loads(page.read())["data"]
    except OSError:
        return None


def result_of(prometheus: str, query: str) -> Any:
    """The series that a query gives. Those of a page that came too late are gone until the next."""
    return wait_until(
        lambda: (ask(prometheus, "query", query=query) or {}).get("result"), f"series: {query}", 30
    )


def wait_for_scrapes(prometheus: str) -> None:
    """Returns once all pages were read several times since now: rates take two samples."""
    enough = "min(count_over_time(up[4s])) >= 4 and count(up == 1) == 3"
    wait_until(lambda: (ask(prometheus, "query", query=enough) or {}).get("result"), "scraped")


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


@pytest.mark.parametrize("query", [t["expr"] for p in PANELS for t in p["targets"]])
def test_panel_shows_something(query: str, prometheus: str) -> None:
    assert result_of(prometheus, query)


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_alert_is_computed_from_series_that_are_there(
    rule: dict[str, Any], prometheus: str
) -> None:
    (group,) = wait_until(
        lambda: (ask(prometheus, "rules") or {}).get("groups"), "the alerts are read"
    )
    (state,) = [one for one in group["rules"] if one["name"] == rule["alert"]]
    assert (state["health"], state.get("lastError", "")) == ("ok", "")
    for selector in selectors_in(promql_parser.parse(rule["expr"])):
        matchers = ", ".join(f'{m.name}="{m.value}"' for m in selector.matchers.matchers)
        assert result_of(prometheus, f"{selector.name}{{{matchers}}}")


# What makes each alert fire, and nothing else: values a minute apart, as promtool writes them.
QUIET = {
    "dnd_record_up": "1x60",
    'dnd_held_back{stage="caption"}': "0x60",
    'dnd_open_items{stage="caption"}': "5x60",
    'dnd_worker_threads{stage="caption"}': "2x60",
    'dnd_backlog_seconds{stage="caption"}': "60x60",
    'dnd_task_items_total{stage="caption"}': "0+60x60",
    'dnd_failed_items_total{stage="caption", kind="item"}': "0+1x60",
    'dnd_rpcs_total{method="/m", code="INTERNAL"}': "0x60",
    'dnd_items_total{app_kubernetes_io_component="captioner"}': "0+60x60",
    'dnd_refused_items_total{app_kubernetes_io_component="captioner"}': "0+1x60",
    'dnd_wait_seconds_bucket{app_kubernetes_io_component="captioner", le="5"}': "0+60x60",
    'dnd_wait_seconds_bucket{app_kubernetes_io_component="captioner", le="10"}': "0+60x60",
    'dnd_wait_seconds_bucket{app_kubernetes_io_component="captioner", le="+Inf"}': "0+60x60",
}
FIRES = {
    "DndCoordinatorSilent": {"dnd_record_up": "_x60"},
    "DndRecordUnreachable": {"dnd_record_up": "0x60"},
    "DndStageHeldBack": {'dnd_held_back{stage="caption"}': "1x60"},
    "DndStageWithoutWorker": {'dnd_worker_threads{stage="caption"}': "0x60"},
    "DndNothingMoves": {
        'dnd_task_items_total{stage="caption"}': "9x60",
        'dnd_failed_items_total{stage="caption", kind="item"}': "0x60",
    },
    "DndBacklogLong": {'dnd_backlog_seconds{stage="caption"}': "20000x60"},
    "DndDefects": {'dnd_rpcs_total{method="/m", code="INTERNAL"}': "0+1x60"},
    "DndItemsFail": {'dnd_failed_items_total{stage="caption", kind="item"}': "0+9x60"},
    "DndRefusing": {'dnd_refused_items_total{app_kubernetes_io_component="captioner"}': "0+90x60"},
    "DndWaiting": {
        'dnd_wait_seconds_bucket{app_kubernetes_io_component="captioner", le="5"}': "0+30x60"
    },
}


def test_each_alert_fires_for_its_reason_and_for_no_other(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    assert set(FIRES) == {rule["alert"] for rule in RULES}
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump({"groups": GROUPS}))
    tests = [
        {
            "interval": "1m",
            "input_series": [
                {"series": name, "values": values} for name, values in (QUIET | changed).items()
            ],
            "promql_expr_test": [
                {
                    "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": "60m",
                    "exp_samples": [{"labels": f'{{alertname="{a}"}}', "value": 1} for a in alert],
                }
            ],
        }
        for alert, changed in [((), {}), *(((name,), some) for name, some in FIRES.items())]
    ]
    given = {"rule_files": ["alerts.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(given))
    done = subprocess.run(
        ["promtool", "test", "rules", "tests.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_on_operations_names_every_metric_and_no_others(
    metrics: dict[str, Labels],
) -> None:
    named = set(re.findall(r"`(dnd_[a-z_]+)[`{ ]", OPERATIONS.read_text()))
    ours = [name for name in metrics if name.startswith("dnd_") and not name.endswith("_created")]
    assert {re.sub("_(bucket|count|sum)$", "", name) for name in ours} == named


def test_every_alert_has_its_runbook() -> None:
    text = OPERATIONS.read_text()
    headings = {line.lstrip("# ").lower() for line in text.splitlines() if line.startswith("### ")}
    assert {rule["alert"].lower() for rule in RULES} <= headings
    for rule in RULES:
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
