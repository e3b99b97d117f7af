"""dnd jobs, watch, labels, export, pause, resume, cancel, retry, delete, gc."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fake_coordinator import FakeCoordinator
from result_samples import make_sample
from unit.cli.conftest import Command

from dnd.cli import job_commands
from dnd.errors import Internal
from dnd.jobs import JobState, Limits, StageCount, UnitState
from dnd.stack import Home

JOB_COMMANDS = ("watch", "labels", "export", "pause", "resume", "cancel", "retry")


def test_lists_jobs_newest_first(dnd: Command, fake: FakeCoordinator, server: str) -> None:
    for number in (2, 3):
        sample = make_sample(2)
        sample.job = replace(sample.job, id=f"job-{number}")
        fake.samples[sample.job.id] = sample
    outcome = dnd("jobs", "--server", server)
    rows = [line.split() for line in outcome.out.splitlines()]
    assert [row[0] for row in rows if row and row[0].startswith("job-")] == [
        "job-3",
        "job-2",
        "job-1",
    ]
    assert "small-net" in outcome.out
    assert "1 min 40 s" in outcome.out
    assert dnd("jobs", "--server", server, "--limit", 1).out.count("job-") == 1


def test_says_so_when_there_are_no_jobs(dnd: Command, fake: FakeCoordinator, server: str) -> None:
    fake.samples.clear()
    outcome = dnd("jobs", "--server", server)
    assert (outcome.status, outcome.out) == (0, "There are no jobs yet.\n")


@pytest.mark.parametrize("command", JOB_COMMANDS)
def test_takes_the_newest_job_when_none_is_named(
    dnd: Command, fake: FakeCoordinator, server: str, command: str
) -> None:
    newest = make_sample(1)
    newest.job = replace(newest.job, id="job-9")
    fake.samples["job-9"] = newest
    outcome = dnd(command, "--server", server)
    assert outcome.status == 0, outcome.err
    assert "job-9" in outcome.out or command == "labels"
    assert "job-1" not in outcome.out
    assert fake.samples["job-1"].job.state is JobState.COMPLETED


@pytest.mark.parametrize("command", JOB_COMMANDS)
def test_fails_when_there_is_no_such_job(dnd: Command, server: str, command: str) -> None:
    outcome = dnd(command, "job-7", "--server", server)
    assert outcome.status == 1
    assert outcome.err == "dnd: There is no job 'job-7'.\n"


@pytest.mark.parametrize("command", ["jobs", *JOB_COMMANDS])
def test_says_how_to_start_one_when_no_stack_runs(dnd: Command, command: str) -> None:
    outcome = dnd(command)
    assert outcome.status == 1
    assert "No stack is running in" in outcome.err
    assert "`dnd up`" in outcome.err
    assert "--server HOST:PORT" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("command", ["jobs", "watch", "labels", "targets"])
def test_names_the_server_when_it_cannot_be_reached(dnd: Command, command: str) -> None:
    outcome = dnd(command, "--server", "127.0.0.1:1")
    assert outcome.status == 1
    assert outcome.err.startswith("dnd: 127.0.0.1:1: The coordinator service did not answer")
    assert "Check --server" in outcome.err


@pytest.mark.parametrize("address", ["localhost", "host:", ":7000", "host:port"])
def test_says_what_an_address_is_when_the_server_is_none(dnd: Command, address: str) -> None:
    outcome = dnd("jobs", "--server", address)
    assert outcome.status == 1
    assert f"--server '{address}': expected HOST:PORT" in outcome.err


def test_prints_labels_with_class_and_hit(dnd: Command, server: str) -> None:
    outcome = dnd("labels", "--server", server)
    lines = outcome.out.splitlines()
    assert outcome.status == 0
    assert "red square 0" in lines[2]
    assert "thing 0" in lines[2]
    assert lines[2].rstrip().endswith("miss")
    assert "(failed)" in outcome.out


def test_marks_the_label_when_a_unit_is_uncertain() -> None:
    (unit,) = make_sample(1, states={0: UnitState.UNCERTAIN}).units
    assert unit.record is not None
    row = job_commands.label_row(unit.record, with_classes=False)
    assert row == ("head", 0, "red square 0 (uncertain)", "plain ground", 0.35, 0.75)


def test_prints_records_one_a_line_when_asked_for_json(dnd: Command, server: str) -> None:
    outcome = dnd("labels", "--json", "--state", "labeled", "--server", server)
    records = [json.loads(line) for line in outcome.out.splitlines()]
    assert [record["unit"] for record in records] == [0, 1, 2, 3]
    assert records[0]["true_class"] == {"name": "thing 0", "hit": False}


def test_suggests_layer_and_state_when_they_are_unknown(dnd: Command, server: str) -> None:
    layer = dnd("labels", "--layer", "hed", "--server", server)
    assert (layer.status, layer.out) == (1, "")
    assert "There is no layer of this job 'hed'. Did you mean 'head'?" in layer.err
    state = dnd("labels", "--state", "lost", "--server", server)
    assert state.status == 2
    assert "'lost' is not one of 'pending', 'labeled'" in state.err
    assert dnd("labels", "--state", "tied", "--server", server).out == "No unit fits.\n"


def test_shows_no_escape_sequences_of_a_model(dnd: Command, fake: FakeCoordinator) -> None:
    from fake_coordinator import serve_fake

    fake.samples["job-1"] = make_sample(1, label="\x1b[31mred [bold]x[/bold]")
    with serve_fake(fake) as address:
        outcome = dnd("labels", "--server", address)
    assert "\x1b" not in outcome.out
    assert "[bold]x[/bold]" in outcome.out


def test_writes_the_results_where_it_is_told(dnd: Command, server: str, tmp_path: Path) -> None:
    outcome = dnd("export", "--out", "here", "--server", server)
    assert outcome.out.strip() == str(Path("here") / "report.html")
    names = sorted(path.name for path in (tmp_path / "here").iterdir())
    assert names == ["labels.csv", "labels.jsonl", "report.html"]
    dnd("export", "--server", server)
    assert (tmp_path / "results" / "job-1" / "report.html").exists()
    outcome = dnd("export", "--out", "here", "--explorer", "--server", server)
    assert outcome.out.splitlines()[-1] == str(Path("here") / "explorer" / "index.html")
    assert (tmp_path / "here" / "explorer" / "index.html").exists()


def test_names_the_folder_when_the_results_cannot_be_written(
    dnd: Command, server: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    outcome = dnd("export", "--out", "file", "--server", server)
    assert outcome.status == 2
    assert "'file' is a file" in outcome.err
    outcome = dnd("export", "--out", "file/below", "--server", server)
    assert outcome.status == 1
    assert "cannot be written to file/below" in outcome.err


@pytest.mark.parametrize(
    ("command", "state", "next_step"),
    [
        ("pause", "paused", "`dnd resume job-1`"),
        ("resume", "running", "`dnd watch job-1`"),
        ("cancel", "cancelled", "`dnd labels job-1`"),
        ("retry", "running", "`dnd watch job-1`"),
    ],
)
def test_says_what_comes_next_when_a_job_was_changed(
    dnd: Command, server: str, command: str, state: str, next_step: str
) -> None:
    outcome = dnd(command, "--server", server)
    assert outcome.status == 0
    assert f"Job job-1 is {state}." in outcome.out
    assert next_step in outcome.out


def test_resumes_with_the_limits_that_are_given(
    dnd: Command, fake: FakeCoordinator, server: str
) -> None:
    assert dnd("resume", "--max-tokens", 500, "--max-dollars", 2.5, "--server", server).status == 0
    assert fake.last_limits == Limits(max_tokens=500, max_dollars=2.5)
    assert dnd("resume", "--server", server).status == 0
    assert fake.last_limits == Limits()
    assert dnd("resume", "--max-images", 0, "--server", server).status == 2


def test_deletes_a_job_only_when_told_to(dnd: Command, fake: FakeCoordinator, server: str) -> None:
    outcome = dnd("delete", "job-1", "--server", server)
    assert (outcome.status, outcome.err) == (
        1,
        "dnd: Nobody can be asked: add --yes to delete it.\n",
    )
    assert "job-1" in fake.samples
    outcome = dnd("delete", "job-1", "--yes", "--server", server)
    assert (outcome.status, fake.samples) == (0, {})
    assert "Job job-1 is deleted. `dnd gc --remove`" in outcome.out
    assert dnd("delete", "--yes", "--server", server).status == 2  # never the newest


def test_counts_garbage_before_it_removes_it(
    dnd: Command, fake: FakeCoordinator, server: str
) -> None:
    outcome = dnd("gc", "--server", server)
    assert "3 artifacts (5 MB) are needed by no job; 7 would be left." in outcome.out
    assert fake.last_collection is not None
    assert (fake.last_collection.grace_s, fake.last_collection.remove) == (86_400, False)
    outcome = dnd("gc", "--remove", "--grace", "1.5", "--server", server)
    assert "3 artifacts removed (5 MB); 7 are left." in outcome.out
    assert (fake.last_collection.grace_s, fake.last_collection.remove) == (5400, True)
    assert dnd("gc", "--grace", "-1", "--server", server).status == 2


def test_watches_until_the_end_and_says_what_failed(
    dnd: Command, fake: FakeCoordinator, server: str
) -> None:
    sample = fake.samples["job-1"]
    sample.job = replace(sample.job, units={UnitState.LABELED: 4, UnitState.FAILED: 1}, num_units=5)
    running = replace(sample.job, state=JobState.RUNNING, units={UnitState.PENDING: 5})
    fake.steps = [replace(running, stages=(StageCount("index", 1, 3, 0, 4, 1.0),))]
    outcome = dnd("watch", "--server", server)
    assert outcome.status == 0
    assert "job job-1: 0 of 5 units have ended; index 1/4" in outcome.out
    assert "job job-1: 5 of 5 units have ended, 1 failed (completed)" in outcome.out
    assert "1 of 5 units failed" in outcome.err
    assert "`dnd retry job-1`" in outcome.err


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (JobState.FAILED, "Job job-1 failed: the index is lost."),
        (JobState.CANCELLED, "Job job-1 was cancelled; `dnd labels job-1` has what was done."),
    ],
)
def test_fails_when_the_watched_job_did_not_succeed(
    dnd: Command, fake: FakeCoordinator, server: str, state: JobState, message: str
) -> None:
    sample = fake.samples["job-1"]
    sample.job = replace(sample.job, state=state, error="the index is lost")
    outcome = dnd("watch", "--server", server)
    assert outcome.status == 1
    assert message in outcome.err


def test_passes_the_servers_reason_on_when_it_fails(
    dnd: Command, fake: FakeCoordinator, server: str
) -> None:
    fake.failures = [("PauseJob", Internal("The record is locked."))]
    outcome = dnd("pause", "--server", server)
    assert (outcome.status, outcome.err) == (1, "dnd: The record is locked.\n")


def test_names_a_process_that_died_while_it_watches(
    dnd: Command, fake: FakeCoordinator, home_with_dead_captioner: Home
) -> None:
    import threading

    fake.holding.set()
    threading.Timer(1.5, fake.holding.clear).start()
    outcome = dnd("watch")
    assert outcome.status == 0
    assert outcome.err.count("captioner (process ") == 1
    assert "captioner: out of memory" in outcome.err
    assert "`dnd up --repair`" in outcome.err
