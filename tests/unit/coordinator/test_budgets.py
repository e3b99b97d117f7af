"""What jobs and tenants use is counted, and at a limit their jobs pause with the reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from coordinator_desk import Desk

from dnd.errors import BadSetting, FailedPrecondition, InvalidInput
from dnd.jobs import JobSpec, JobState, LayerUnits, Limits, Usage, limits_from_message
from dnd.v1 import coordinator_pb2
from dnd_services.coordinator.budgets import Budgets, Price, TenantRules, read_budgets
from dnd_services.coordinator.models import ImageSetRow

PRICES = {"fake/summarizer": Price(1000.0, 2000.0)}


@pytest.fixture
def spec(spec: JobSpec) -> JobSpec:
    """4 units, of them one dead."""
    return replace(spec, layers=(LayerUnits("features.conv", (10, 11, 12, 13)),))


def used_by(desk: Desk, job_id: str) -> Usage:
    return desk.progress(job_id).used


def test_what_a_job_uses_is_what_its_services_answered(desk: Desk, spec: JobSpec) -> None:
    desk.use(Budgets(PRICES))
    job_id = desk.create(spec)
    desk.run_to_end(job_id)
    used = used_by(desk, job_id)
    tokens = [r["tokens"] for r in desk.records(job_id) if r["candidates"]]
    assert used.num_input_tokens == sum(one["num_input_tokens"] for one in tokens) > 0
    assert used.num_output_tokens == sum(one["num_output_tokens"] for one in tokens) > 0
    expected = used.num_input_tokens * 1e-3 + used.num_output_tokens * 2e-3
    assert used.dollars == pytest.approx(expected, rel=1e-6)
    assert used.num_images == sum(len(row.images) for row in desk.rows(ImageSetRow))
    assert used.num_units == 4
    again = desk.create(spec, "again")
    desk.run_to_end(again)
    assert used_by(desk, again).num_images == 0  # all of them are there
    desk.check_counters(job_id)


@pytest.mark.parametrize(
    ("limits", "higher", "reason"),
    [
        (Limits(max_tokens=40), Limits(max_tokens=10**6), " of at most 40 tokens"),
        (Limits(max_dollars=0.04), Limits(max_dollars=1e6), " of at most $0.04"),
        (Limits(max_images=3), Limits(max_images=10**6), " of at most 3 images"),
        (Limits(max_units=3), Limits(max_units=100), "3 of at most 3 units"),
    ],
    ids=["tokens", "dollars", "images", "units"],
)
def test_job_pauses_at_its_limit_and_goes_on_with_a_higher_one(
    desk: Desk, spec: JobSpec, limits: Limits, higher: Limits, reason: str
) -> None:
    desk.use(Budgets(PRICES))
    desk.tune(min_task_items=1, max_task_items=1)
    job_id = desk.create(replace(spec, limits=limits))
    desk.run_until_idle()
    assert JobState(desk.job(job_id).state) is JobState.PAUSED
    said = desk.progress(job_id).pause_reason
    assert reason in said
    assert f"`dnd resume {job_id}` goes on with a higher limit" in said
    with pytest.raises(FailedPrecondition, match=f"Job {job_id} has used .* give a higher limit"):
        desk.resume(job_id)
    desk.resume(job_id, higher)
    desk.run_to_end(job_id)
    assert JobState(desk.job(job_id).state) is JobState.COMPLETED
    undisturbed = desk.create(spec, tenant="undisturbed")
    desk.run_to_end(undisturbed)
    assert desk.records(job_id) == desk.records(undisturbed)


def test_job_exceeds_its_limit_by_what_is_under_way_at_most(desk: Desk, spec: JobSpec) -> None:
    desk.tune(min_task_items=1, max_task_items=1)
    job_id = desk.create(replace(spec, limits=Limits(max_images=1)))
    desk.run_until_idle()
    in_flight = 4  # tasks of stage synthesize: two for each of two threads, of one set each
    assert 1 <= used_by(desk, job_id).num_images <= in_flight * 3


def test_limit_that_is_not_reached_changes_nothing(desk: Desk, spec: JobSpec) -> None:
    job_id = desk.create(replace(spec, limits=Limits(10**9, 0.0, 10**9, 4)))
    desk.run_to_end(job_id)
    assert JobState(desk.job(job_id).state) is JobState.COMPLETED


def test_tenants_jobs_pause_together_at_its_limit(desk: Desk, spec: JobSpec) -> None:
    desk.use(Budgets(tenants={"a": TenantRules(max_images=5)}))
    first, second = desk.create(spec, "1", tenant="a"), desk.create(spec, "2", tenant="a")
    other = desk.create(spec, "1", tenant="b")
    desk.run_until_idle()
    for job_id in (first, second):
        assert JobState(desk.job(job_id).state) is JobState.PAUSED
        reason = desk.progress(job_id).pause_reason
        assert "Tenant 'a' has used" in reason
        assert "of at most 5 images, which its operator sets." in reason
    assert JobState(desk.job(other).state) is JobState.COMPLETED
    desk.resume(first)
    desk.run_until_idle()
    assert JobState(desk.job(first).state) is JobState.PAUSED
    desk.cancel(second)
    desk.delete(second)
    desk.sweep_until_purged()
    desk.use(Budgets(tenants={"a": TenantRules(max_images=10**6)}))
    desk.resume(first)
    desk.run_to_end(first)
    assert JobState(desk.job(first).state) is JobState.COMPLETED


@pytest.mark.parametrize(
    ("rules", "higher", "reason"),
    [
        (TenantRules(max_tokens=40), TenantRules(max_tokens=10**6), " of at most 40 tokens"),
        (TenantRules(max_dollars=0.04), TenantRules(max_dollars=1e6), " of at most $0.04"),
        (TenantRules(max_units=3), TenantRules(max_units=100), "3 of at most 3 units"),
    ],
    ids=["tokens", "dollars", "units"],
)
def test_tenant_pauses_at_its_limit_and_goes_on_with_a_higher_one(
    desk: Desk, spec: JobSpec, rules: TenantRules, higher: TenantRules, reason: str
) -> None:
    desk.use(Budgets(PRICES, {"a": rules}))
    desk.tune(min_task_items=1, max_task_items=1)
    job_id = desk.create(spec, tenant="a")
    desk.run_until_idle()
    assert JobState(desk.job(job_id).state) is JobState.PAUSED
    assert reason in desk.progress(job_id).pause_reason
    desk.use(Budgets(PRICES, {"a": higher}))
    desk.resume(job_id)
    desk.run_to_end(job_id)
    assert JobState(desk.job(job_id).state) is JobState.COMPLETED


def test_tenant_has_as_many_jobs_as_its_quota(desk: Desk, spec: JobSpec) -> None:
    desk.use(Budgets(tenants={"*": TenantRules(max_jobs=2)}))
    first = desk.create(spec, "1")
    desk.create(spec, "2")
    assert desk.create(spec, "1") == first  # the same request again
    with pytest.raises(FailedPrecondition, match="has 2 jobs that have not ended, of at most 2"):
        desk.create(spec, "3")
    desk.create(spec, "3", tenant="other")
    desk.cancel(first)
    desk.create(spec, "3")


def test_limits_are_refused_when_they_are_no_amounts() -> None:
    for wrong in ({"max_tokens": -1}, {"max_dollars": float("nan")}, {"max_dollars": -0.5}):
        with pytest.raises(InvalidInput, match=f"limits.{next(iter(wrong))} is .* at least 0"):
            limits_from_message(coordinator_pb2.Limits(**wrong))  # type: ignore[arg-type]


def test_budgets_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "budgets.yaml"
    file.write_text(
        'prices: {"openai:gpt-4o-mini": {input: 0.15, output: 0.6}}\n'
        'tenants: {a: {max_dollars: 20, max_tasks: 8}, "*": {max_tokens: 1000}}\n'
    )
    found = read_budgets(str(file))
    assert found.prices["openai:gpt-4o-mini"].dollars(10**6, 10**6) == pytest.approx(0.75)
    assert found.rules_of("a") == TenantRules(max_dollars=20, max_tasks=8)
    assert found.rules_of("b") == TenantRules(max_tokens=1000)
    assert read_budgets("") == Budgets()
    assert read_budgets("").rules_of("a") == TenantRules()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "the file: expected keys and values"),
        ("price: {}", "no key 'price'. Did you mean 'prices'"),
        ("prices: {gpt: 3}", "gpt: expected keys and values, not 3"),
        ("prices: {gpt: {input: 1}}", "gpt: expected the keys input and output"),
        ("prices: {gpt: {input: 1, output: -1}}", "output = -1: expected a number of at least 0"),
        ("tenants: {a: {max_token: 1}}", "no key 'max_token'. Did you mean 'max_tokens'"),
        ("tenants: {a: {max_jobs: 1.5}}", "max_jobs = 1.5: expected a whole number"),
        ("tenants: {a: {max_jobs: true}}", "max_jobs = True: expected a whole number"),
        ("tenants: {a: {max_dollars: .inf}}", "max_dollars = inf: expected a number"),
        ("a: [", "it is no YAML"),
    ],
)
def test_budgets_file_is_refused_when_it_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "budgets.yaml"
    file.write_text(text)
    with pytest.raises(BadSetting) as caught:
        read_budgets(str(file))
    assert message in caught.value.message
    assert "DND_BUDGETS" in caught.value.message


def test_budgets_file_is_refused_when_it_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match=r"cannot be read: No such file"):
        read_budgets(str(tmp_path / "none.yaml"))
