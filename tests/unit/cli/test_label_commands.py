"""dnd targets, layers, label, estimate, profiles."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fake_coordinator import FakeCoordinator, serve_fake
from result_samples import make_sample
from unit.cli.conftest import Command

from dnd.cli import connect, label_commands
from dnd.cli.specs import make_spec
from dnd.jobs import Estimate, JobState, Method, StageLoad, UnitState, spec_from_message
from dnd.stack import Home, StackConfig

ENOUGH = ("small-net", "--layer", "head", "--units", "0-2", "--probe", "squares")
LONG = Estimate(400, 2000, 4000, 2000, 24_000, 7200.0, 3)


@pytest.fixture
def started(fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A private stack whose coordinator is the fake; what was done with the stack."""
    done: list[str] = []

    def start(home: Home, config: StackConfig, show: object, *, only: Sequence[str] = ()) -> None:
        assert config.allow_specs
        done.append(f"start {home.path.name} {','.join(only)}".strip())

    with serve_fake(fake) as address:
        monkeypatch.setattr(connect, "start", start)
        monkeypatch.setattr(connect, "stop", lambda home, grace: done.append("stop"))
        monkeypatch.setattr(
            connect, "running_server", lambda home: address if home.path.name == "private" else None
        )
        yield done


def test_lists_what_can_be_named(dnd: Command, server: str) -> None:
    outcome = dnd("targets", "--server", server)
    assert outcome.status == 0
    assert [line.split() for line in outcome.out.splitlines()[2:]] == [
        ["model", "small-net"],
        ["probe", "set", "squares"],
        ["profile", "default"],
        ["profile", "starter"],
    ]


def test_lists_layers_with_kind_units_and_shape(dnd: Command, server: str) -> None:
    outcome = dnd("layers", "small-net", "--server", server)
    assert "features.3 Conv2d conv 64" in " ".join(outcome.out.split())
    assert "64 × 14 × 14" in outcome.out
    assert "thing 0, …" in outcome.out


def test_suggests_a_model_when_it_is_unknown(dnd: Command, server: str) -> None:
    for command in (("layers", "smal-net"), ("label", "smal-net", *ENOUGH[1:])):
        outcome = dnd(*command, "--server", server)
        assert outcome.status == 1
        assert "There is no model 'smal-net'. Did you mean 'small-net'?" in outcome.err


def test_says_what_is_missing_when_a_model_is_not_given(dnd: Command, server: str) -> None:
    outcome = dnd("layers", "--server", server)
    assert outcome.status == 2
    assert "Missing argument 'MODEL'" in outcome.err


def test_labels_and_writes_the_results(
    dnd: Command, fake: FakeCoordinator, server: str, tmp_path: Path
) -> None:
    outcome = dnd("label", *ENOUGH, "--set", "synthesis.num_steps=8", "--server", server)
    assert outcome.status == 0, outcome.err
    assert "3 units: 100 images to index, 30 captions, 15 LLM calls" in outcome.out
    assert "about 12 s (as measured here)" in outcome.out
    assert "red square 0" in outcome.out
    assert outcome.out.rstrip().endswith("results/job-2/report.html")
    assert (tmp_path / "results/job-2/labels.csv").exists()
    assert fake.last_spec is not None
    assert list(fake.last_spec.layers[0].units) == [0, 1, 2]
    assert dict(fake.last_spec.overrides) == {"synthesis.num_steps": "8"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layer", "hed"), "'hed'. Did you mean 'head'?"),
        (("--layer", "head", "--units", "400"), "head has units 0 to 399"),
        (("--layer", "head", "--units", "0..3"), "Units '0..3': expected numbers and ranges"),
        (("--layer", "head", "--set", "score.functoin=x"), "Did you mean 'score.function'"),
        (("--layer", "head", "--profile", "fast"), "There is no profile 'fast'"),
        ((), "No layer is given: add --layer PATH (`dnd layers MODEL` lists them)"),
    ],
)
def test_creates_nothing_when_the_job_is_wrong(
    dnd: Command, fake: FakeCoordinator, server: str, arguments: Sequence[str], message: str
) -> None:
    outcome = dnd("label", "small-net", "--probe", "squares", *arguments, "--server", server)
    assert outcome.status == 1
    assert message in outcome.err
    assert outcome.err.startswith("dnd: ")
    assert "CreateJob" not in fake.calls


def test_labels_from_the_concepts_in_a_file(
    dnd: Command, fake: FakeCoordinator, server: str, tmp_path: Path
) -> None:
    concepts = tmp_path / "concepts.txt"
    concepts.write_text("red\n\ngreen\nred\n")
    method = ("--method", "clip-dissect", "--concepts", concepts, "--similarity", "wpmi")
    outcome = dnd("label", *ENOUGH, *method, "--server", server)
    assert outcome.status == 0, outcome.err
    assert "2 concepts; 1 blank lines and 1 repeats left out" in outcome.out
    assert fake.last_spec is not None
    spec = spec_from_message(fake.last_spec)
    assert spec.method is Method.CLIP_DISSECT
    assert spec.concept_set == f"sha256:{64 * '0'}"
    assert spec.overrides == {"dissect.similarity": '"wpmi"'}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no concept"),
        (b"\n \n", "has no concept"),
        (b"\xff\xfe", "is no UTF-8 text: expected one concept in each line"),
        (None, "cannot be read: No such file"),
    ],
)
def test_refuses_concepts_that_cannot_be_used(
    dnd: Command,
    fake: FakeCoordinator,
    server: str,
    tmp_path: Path,
    content: bytes | None,
    message: str,
) -> None:
    concepts = tmp_path / "concepts.txt"
    if content is not None:
        concepts.write_bytes(content)
    method = ("--method", "cascade", "--concepts", concepts)
    outcome = dnd("label", *ENOUGH, *method, "--server", server)
    assert outcome.status == 1
    assert message in outcome.err
    assert "CreateJob" not in fake.calls


def test_refuses_an_unknown_option(dnd: Command) -> None:
    outcome = dnd("label", *ENOUGH, "--prob", "x", "--ouput", "y")
    assert outcome.status == 2
    assert "No such option" in outcome.err


def test_estimates_without_creating_a_job(dnd: Command, fake: FakeCoordinator, server: str) -> None:
    fake.estimate = LONG
    outcome = dnd("estimate", *ENOUGH, "--server", server)
    assert outcome.status == 0
    assert "400 units: 2,000 images to index" in outcome.out
    assert "about 2 h 00 min (as measured here)" in outcome.out
    assert "3 files of the probe set are no readable image: left out" in outcome.out
    assert fake.calls == ["EstimateJob"]


def test_simulates_other_numbers_of_replicas(
    dnd: Command, fake: FakeCoordinator, server: str
) -> None:
    stages = (
        StageLoad("index", 10, 1.0, 1, 1),
        StageLoad("summarize", 400, 1.0, 1, 1),
        StageLoad("synthesize", 4000, 18.0, 2, 1),
    )
    fake.estimate = replace(LONG, stages=stages)
    outcome = dnd("estimate", *ENOUGH, "--server", server, "--within-h", "2")
    lines = [" ".join(line.split()) for line in outcome.out.splitlines()]
    assert "1 10 h 00 min synthesize (100%)" in lines
    assert any(line.startswith("32 ") and "synthesize" in line for line in lines)
    assert "6 replicas of synthesize end it within 2 h." in lines
    assert "synthesize 4,000 9 10.00 5" in lines
    assert "summarize 400 1 0.11 1" in lines
    outcome = dnd("estimate", *ENOUGH, "--server", server, "--within-h", "0.1")
    assert "No number of replicas of synthesize ends it within 0.1 h" in outcome.out


def test_simulates_only_what_has_been_measured(
    dnd: Command, fake: FakeCoordinator, server: str
) -> None:
    fake.estimate = replace(LONG, stages=(StageLoad("synthesize", 4000),))
    outcome = dnd("estimate", *ENOUGH, "--server", server, "--simulate")
    assert outcome.status == 1
    assert "Stage synthesize has not been measured yet" in outcome.err


def test_guesses_when_nothing_has_been_measured(
    dnd: Command, fake: FakeCoordinator, server: str
) -> None:
    fake.estimate = replace(LONG, duration_s=0.0)
    outcome = dnd("estimate", *ENOUGH, "--server", server)
    assert "(a first guess for two CPU cores)" in outcome.out
    small = float(label_commands.guess_duration_s(Estimate(1, 100, 10, 5, 60), _spec()))
    assert 20 < small < label_commands.guess_duration_s(fake.estimate, _spec())


def test_stops_when_it_takes_long_and_nobody_can_be_asked(
    dnd: Command, fake: FakeCoordinator, server: str
) -> None:
    fake.estimate = LONG
    outcome = dnd("label", *ENOUGH, "--server", server)
    assert outcome.status == 1
    assert "This takes about 2 h 00 min, and nobody can be asked: add --yes" in outcome.err
    assert "CreateJob" not in fake.calls


def test_does_not_ask_when_told_yes(dnd: Command, fake: FakeCoordinator, server: str) -> None:
    fake.estimate = LONG
    assert dnd("label", *ENOUGH, "--yes", "--server", server).status == 0
    assert "CreateJob" in fake.calls


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 130), ("", 130)])
def test_asks_when_it_takes_long(
    dnd: Command,
    fake: FakeCoordinator,
    server: str,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    status: int,
) -> None:
    import io

    fake.estimate = LONG
    monkeypatch.setattr(label_commands, "can_ask", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    outcome = dnd("label", *ENOUGH, "--server", server)
    assert outcome.status == status
    assert "Go on? [y/N]" in outcome.out
    assert ("CreateJob" in fake.calls) == (status == 0)


def test_returns_at_once_when_detached(dnd: Command, fake: FakeCoordinator, server: str) -> None:
    fake.holding.set()
    outcome = dnd("label", *ENOUGH, "--detach", "--server", server)
    assert outcome.status == 0
    assert "Watch it with `dnd watch job-2`." in outcome.out
    assert "WatchJob" not in fake.calls


def test_fails_when_the_job_fails_but_writes_what_there_is(
    dnd: Command, fake: FakeCoordinator, server: str, tmp_path: Path
) -> None:
    sample = make_sample(2, states={0: UnitState.FAILED, 1: UnitState.FAILED})
    sample.job = replace(sample.job, state=JobState.FAILED, error="The captioner is gone")
    fake.on_create = sample
    outcome = dnd("label", *ENOUGH, "--out", "out", "--server", server)
    assert outcome.status == 1
    assert "Job job-2 failed: The captioner is gone." in outcome.err
    assert (tmp_path / "out/report.html").exists()


def test_starts_a_stack_for_the_job_when_none_runs(
    dnd: Command, fake: FakeCoordinator, started: list[str], tmp_path: Path
) -> None:
    (tmp_path / "pictures").mkdir()
    outcome = dnd("label", "small-net", "--layer", "head", "--probe", "pictures")
    assert outcome.status == 0, outcome.err
    assert started == ["start private", "stop"]
    assert fake.last_spec is not None
    assert fake.last_spec.probe == f"imagefolder:{tmp_path / 'pictures'}"
    assert "Starting a stack for this command in" in outcome.err


def test_goes_on_with_its_job_when_the_same_command_comes_again(
    dnd: Command, fake: FakeCoordinator, started: list[str]
) -> None:
    dnd("label", *ENOUGH)
    again = dnd("label", *ENOUGH)
    assert "Going on with job job-2: 4 of 5 units." in again.out
    assert list(fake.samples) == ["job-1", "job-2"]
    dnd("label", *ENOUGH, "--seed", 1)
    assert list(fake.samples) == ["job-1", "job-2", "job-3"]


def test_starts_only_what_a_plan_needs(
    dnd: Command, started: list[str], fake: FakeCoordinator
) -> None:
    dnd("estimate", *ENOUGH)
    dnd("targets")
    assert started == ["start private valkey,activations,coordinator", "stop"] * 2


def test_refuses_to_detach_from_a_stack_that_ends(dnd: Command, started: list[str]) -> None:
    outcome = dnd("label", *ENOUGH, "--detach")
    assert outcome.status == 1
    assert "--detach needs a stack that stays: start one, `dnd up`." in outcome.err
    assert started == ["start private", "stop"]


def test_says_how_to_go_on_when_a_private_job_is_interrupted(
    dnd: Command, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(label_commands, "follow", interrupted)
    outcome = dnd("label", *ENOUGH)
    assert outcome.status == 130
    assert "The same command goes on where this one stopped" in outcome.out
    assert started == ["start private", "stop"]


def test_leaves_the_job_running_when_a_person_presses_ctrl_c(
    fake: FakeCoordinator, server: str, tmp_path: Path
) -> None:
    assert fake.on_create is not None
    running = replace(fake.on_create.job, id="job-2", state=JobState.RUNNING)
    fake.steps = [running]
    fake.holding.set()
    source = Path(connect.__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-m", "dnd.cli", "label", *ENOUGH, "--server", server],
        env={**os.environ, "PYTHONPATH": str(source), "PYTHONUNBUFFERED": "1"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell runs in the background ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any("units have ended" in line for line in lines)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "The job goes on. Come back with `dnd watch job-2`;" in out
    assert "`dnd cancel job-2` ends it" in out
    assert "Traceback" not in err
    assert not {"CancelJob", "PauseJob"} & set(fake.calls)


def test_prints_profiles_as_a_table_or_in_full(dnd: Command) -> None:
    assert {line.split()[0] for line in dnd("profiles").out.splitlines()[2:]} == {
        "paper",
        "default",
        "starter",
    }
    assert "num_steps: 8" in dnd("profiles", "starter").out
    assert json.loads(dnd("profiles", "paper", "--json").out)["name"] == "paper"
    outcome = dnd("profiles", "papr")
    assert outcome.status == 1
    assert "Did you mean 'paper'" in outcome.err


def _spec() -> label_commands.JobSpec:
    return make_spec("net", ("head",), "", "set", "starter", (), None, None)
