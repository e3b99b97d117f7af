"""What the record says of itself to Prometheus, and autoscalers through it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from coordinator_desk import Desk
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dnd.jobs import JobSpec, LayerUnits
from dnd_services.coordinator.budgets import Budgets, Price
from dnd_services.coordinator.record_metrics import RecordCollector

Samples = dict[tuple[str, str], float]


def scrape(registry: CollectorRegistry) -> Samples:
    """Samples by name and the value of their one label."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.fixture
def registry(desk: Desk) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(RecordCollector(desk.store, desk.settings.lease_s))
    return registry


def test_backlog_is_there_before_anything_was_measured_and_gone_at_the_end(
    desk: Desk, spec: JobSpec, registry: CollectorRegistry
) -> None:
    spec = replace(spec, layers=(LayerUnits("features.conv", (10, 11, 12, 13)),))
    desk.use(Budgets({"fake/summarizer": Price(1000.0, 2000.0)}))
    found = scrape(registry)
    assert found["dnd_record_up", ""] == 1
    assert found["dnd_backlog_seconds", "index"] == 0
    job_id = desk.create(spec)
    found = scrape(registry)
    assert found["dnd_backlog_seconds", "index"] == found["dnd_open_items", "index"] > 0
    assert found["dnd_jobs", "running"] == 1
    desk.run_to_end(job_id)
    found = scrape(registry)
    used = desk.progress(job_id).used
    assert {value for (name, _), value in found.items() if name == "dnd_backlog_seconds"} == {0.0}
    assert found["dnd_jobs", "completed"] == 1
    assert found["dnd_used_tokens_total", "input"] == used.num_input_tokens > 0
    assert found["dnd_used_tokens_total", "output"] == used.num_output_tokens > 0
    assert found["dnd_used_dollars_total", ""] == pytest.approx(used.dollars)
    assert found["dnd_used_images_total", ""] == used.num_images > 0
    assert found["dnd_ended_units_total", ""] == 4
    again = desk.create(replace(spec, seed=5), "again")  # now the times are known
    found = scrape(registry)
    assert 0 < found["dnd_backlog_seconds", "index"] != found["dnd_open_items", "index"]
    desk.run_to_end(again)


def test_record_that_cannot_be_read_is_told_and_leaves_the_page_readable(
    desk: Desk, registry: CollectorRegistry
) -> None:
    with desk.store.writing() as session:
        session.connection().exec_driver_sql("DROP TABLE counter")
    assert scrape(registry) == {("dnd_record_up", ""): 0.0}


def test_results_that_were_there_already_are_counted_beside_those_computed(
    desk: Desk, spec: JobSpec, registry: CollectorRegistry
) -> None:
    spec = replace(spec, layers=(LayerUnits("features.conv", (10, 11, 12)),), seed=9)
    for request_id in ("first", "again"):
        desk.run_to_end(desk.create(spec, request_id))
    num = {
        (sample.labels["stage"], sample.labels["how"]): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if sample.name == "dnd_results"
    }
    for stage in ("exemplars", "caption", "summarize", "score"):
        assert num[stage, "computed"] == num[stage, "reused"] > 0
    # Units of the first job share prompts.
    assert num["synthesize", "reused"] >= num["synthesize", "computed"] > 0
