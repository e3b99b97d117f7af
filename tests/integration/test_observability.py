"""What operators see of a job: one trace, and JSON lines that name job, units and trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from coordinator_stack import SPEC, finish, wait_until
from observed import Span, Watched, collecting, watched_stack

from dnd.client import Client
from dnd.clients import SERVICE_NAMES
from dnd.errors import NotFound, Unauthenticated
from dnd.jobs import Job, JobState, UnitState

ADMIN = "a-secret-of-the-operator-0123456789-abcdef"
SERVER, CONSUMER = 2, 5
# Stages of a unit, and what each asks.
CALLS = {
    "exemplars": "dnd.v1.ActivationsService/SelectExemplars",
    "caption": "dnd.v1.CaptionerService/CaptionImages",
    "summarize": "dnd.v1.SummarizerService/ProposeConcepts",
    "synthesize": "dnd.v1.SynthesizerService/SynthesizeImages",
    "score": "dnd.v1.ScorerService/ScoreConcepts",
    "calibrate": "dnd.v1.ScorerService/EmbedTexts",
}


@dataclass(frozen=True)
class Seen:
    """What was seen of a job from its creation to the end of all processes."""

    job: Job
    unit: tuple[str, int]
    spans: tuple[Span, ...]
    lines: dict[str, list[dict[str, Any]]]
    text: str

    def of(self, **attributes: Any) -> list[Span]:
        """Spans that have these attributes, dots written as underscores."""
        wanted = {name.replace("_", "."): value for name, value in attributes.items()}
        return [
            one
            for one in self.spans
            if wanted.items() <= {k: v for k, v in one.attributes.items() if k in wanted}.items()
        ]

    def children(self, span: Span) -> list[Span]:
        return [one for one in self.spans if one.parent == span.id]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("observed")
    (folder / "admin").write_text(ADMIN)
    with collecting() as (collector, address):
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        tokens = {"auth": "tokens", "admin_token_file": folder / "admin"}
        with watched_stack(folder, environment, **tokens) as stack:
            job, unit = run_job(stack)
            stack.stop_all()
            names = ("services", "coordinator", "worker")
            yield Seen(
                job,
                unit,
                tuple(collector.spans),
                {name: stack.lines(name) for name in names},
                "".join(map(stack.log, names)),
            )


def run_job(stack: Watched) -> tuple[Job, tuple[str, int]]:
    """A job that has ended, and one of its units that got a label."""
    address = json.loads((stack.folder / "coordinator.json").read_text())["address"]
    with Client(address, token=ADMIN) as client:
        job = finish(client, client.create_job(SPEC).id)
        with pytest.raises(NotFound):
            client.get_job("no-such-job")
        labelled = next(unit for unit in client.labels(job.id) if unit.state is UnitState.LABELED)
    with Client(address, token="dnd_" + "x" * 43) as stranger, pytest.raises(Unauthenticated):
        stranger.get_job(job.id)
    return job, (labelled.layer, labelled.unit)


def test_one_trace_follows_a_unit_from_the_call_of_the_api_to_its_score(seen: Seen) -> None:
    assert seen.job.state is JobState.COMPLETED
    (created,) = seen.of(rpc_method="CreateJob", dnd_job=seen.job.id)
    assert (created.process, created.parent) == ("dnd-coordinator", "")
    layer, unit = seen.unit
    found = seen.of(dnd_job=seen.job.id, dnd_layer=layer, dnd_unit=unit)
    assert {one.attributes["dnd.stage"] for one in found} == set(CALLS)
    by_id = {one.id: one for one in seen.spans}
    for one in found:
        assert one.trace == created.trace
        assert one.process == "dnd-worker-all"
        group = by_id[one.parent]
        calls = [child for child in seen.children(group) if child.name == CALLS[group.name]]
        reused = one.attributes.get("dnd.reused", False)
        assert calls or reused, f"{group.name} asks its service"
        for call in calls:
            (answered,) = seen.children(call)
            assert (answered.process, answered.kind) == ("dnd-fakes", SERVER)
            assert (answered.name, answered.trace) == (call.name, created.trace)
            assert answered.attributes["dnd.job"] == seen.job.id
        taken = by_id[group.parent]
        assert (taken.name, taken.kind) == (f"process {group.name}", CONSUMER)
        sent = by_id[taken.parent]
        assert (sent.name, sent.process) == (f"publish {group.name}", "dnd-coordinator")
        assert sent.parent == created.id


def test_units_that_one_drawing_is_for_are_all_named(seen: Seen) -> None:
    drawn = {
        (one.attributes["dnd.layer"], one.attributes["dnd.unit"])
        for one in seen.spans
        if one.name == "synthesize unit"
    }
    scored = {
        (one.attributes["dnd.layer"], one.attributes["dnd.unit"])
        for one in seen.spans
        if one.name == "score unit"
    }
    assert scored
    assert scored <= drawn


def test_span_of_a_call_that_fails_is_marked_with_the_class_of_its_error(seen: Seen) -> None:
    failed = [one for one in seen.of(rpc_method="GetJob") if one.failed]
    assert {one.attributes["error.type"] for one in failed} == {"NotFound", "Unauthenticated"}
    (found,) = seen.of(rpc_method="CreateJob")
    assert not found.failed


def test_lines_of_all_processes_are_json_with_job_units_and_trace(seen: Seen) -> None:
    (created,) = seen.of(rpc_method="CreateJob", dnd_job=seen.job.id)
    layer, unit = seen.unit
    for name, lines in seen.lines.items():
        assert lines, name
        for line in lines:
            assert {"time", "level", "process", "pid", "logger", "message"} <= set(line)
    of_unit = [
        line
        for line in seen.lines["worker"]
        if line.get("job") == seen.job.id
        and line.get("layer") == layer
        and unit in line.get("units", ())
    ]
    assert {line["stage"] for line in of_unit} == set(CALLS) - {"synthesize"}
    assert {line["trace"] for line in of_unit} == {created.trace}
    spans = {one.id for one in seen.spans}
    assert all(line["span"] in spans for line in of_unit)


def test_no_token_gets_into_lines_or_spans(seen: Seen) -> None:
    shown = seen.text + repr(seen.spans)
    assert ADMIN not in shown
    assert "dnd_xxxx" not in shown


def run_process(module: str, folder: Path, **settings: object) -> subprocess.Popen[bytes]:
    """A process that logs all it can."""
    variables = {"artifacts": folder / "store", "log_level": "DEBUG", **settings}
    environment = {f"DND_{name.upper()}": str(value) for name, value in variables.items()}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("DND_")}
    with (folder / "log").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", module],
            env=inherited | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


@pytest.mark.parametrize("style", ["text", "json"])
def test_password_of_the_broker_is_in_no_line_of_a_coordinator_without_one(
    tmp_path: Path, style: str
) -> None:
    process = run_process(
        "dnd_services.coordinator",
        tmp_path,
        log_format=style,
        database=f"sqlite:///{tmp_path}/record.db",
        redis="redis://:pa%24s-word-77@127.0.0.1:1/0",
        endpoints_file=tmp_path / "ready.json",
        **dict.fromkeys(SERVICE_NAMES, "127.0.0.1:1"),
    )
    try:
        wait_until(lambda: b"leads" in (tmp_path / "log").read_bytes(), "it leads")
        wait_until((tmp_path / "ready.json").exists, "it serves")
    finally:
        process.terminate()
        assert process.wait(30) == 0
    text = (tmp_path / "log").read_text()
    assert "DEBUG" in text
    assert "pa%24s-word-77" not in text
    assert "pa$s-word-77" not in text
    if style == "json":
        assert all(json.loads(line) for line in text.splitlines())


def test_reason_why_a_process_ends_is_a_json_line_too(tmp_path: Path) -> None:
    process = run_process("dnd_services.scorer", tmp_path, log_format="json", device="cpu")
    assert process.wait(60) == 2
    line = [json.loads(text) for text in (tmp_path / "log").read_text().splitlines()][-1]
    assert (line["level"], line["process"]) == ("CRITICAL", "scorer")
    assert "DND_MODEL is not set" in line["message"]
