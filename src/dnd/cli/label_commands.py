"""dnd targets, layers, label, estimate, profiles."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count
from pathlib import Path

import click
import yaml

from dnd import simulation
from dnd.cli.connect import Session, connected_or_private
from dnd.cli.console import can_ask, clean, format_bytes, format_duration, print_table, say
from dnd.cli.job_commands import (
    class_names,
    finish,
    label_headers,
    label_row,
    warn_of_death,
)
from dnd.cli.options import limit_options, server_option, spec_options
from dnd.cli.progress import follow, headline
from dnd.cli.specs import make_absolute, read_concepts
from dnd.clients import ActivationsClient, EndpointPool
from dnd.concept_sets import NAMES
from dnd.errors import FailedPrecondition
from dnd.jobs import Estimate, Job, JobSpec, JobState, Limits
from dnd.keys import digest_of
from dnd.profiles import PROFILES, get_profile, to_json
from dnd.report import write_results
from dnd.types import LayerInfo
from dnd.version import VERSION

ASK_ABOVE_S = 30 * 60
MAX_PRINTED = 60
SIMULATED_REPLICAS = (1, 2, 4, 8, 16, 32)
NEEDED_TO_PLAN = ("valkey", "activations", "coordinator")


@click.command()
@server_option
def targets(server: str, home: Path) -> None:
    """List the models, probe sets and profiles that can be named."""
    with connected_or_private(server, home, only=NEEDED_TO_PLAN) as session:
        found = session.client.targets()
    rows = [
        (kind, name)
        for kind, names in (
            ("model", found.models),
            ("probe set", found.probes),
            ("profile", found.profiles),
        )
        for name in names
    ]
    print_table(("Kind", "Name"), rows)


@click.command()
@click.argument("model")
@server_option
@click.option(
    "--private", is_flag=True, help="Start a process for this, even if a stack is running."
)
def layers(model: str, server: str, home: Path, private: bool) -> None:
    """List the layers of MODEL that can be labelled.

    MODEL is a name that `dnd targets` lists. Where no stack is running, or with --private, it may
    also be a specification such as hf:microsoft/resnet-50.
    """
    model = make_absolute(JobSpec(model, (), "")).model
    with connected_or_private(server, home, private=private, only=("activations",)) as session:
        found = _list_layers(session, model)
    rows = [
        (
            one.path,
            one.module,
            one.kind.value,
            one.num_units,
            " × ".join(map(str, one.output_shape)),
            f"{one.unit_names[0]}, …" if one.unit_names else "",
        )
        for one in found
    ]
    headers = ("Layer", "Module", "Kind", "Units", "Output", "Classes")
    print_table(headers, rows, right=("Units",))


def _list_layers(session: Session, model: str) -> tuple[LayerInfo, ...]:
    if not session.private or session.home is None:
        return session.client.layers(model)
    pool = EndpointPool("activations", f"file:{session.home.endpoints('activations')}")
    try:
        return tuple(ActivationsClient(pool).list_layers(model)[0])
    finally:
        pool.close()


@click.command()
@spec_options
@limit_options
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder for labels.jsonl, labels.csv and report.html.  [default: results/JOB]",
)
@click.option(
    "--yes", "-y", is_flag=True, help="Do not ask, even if it takes more than half an hour."
)
@click.option(
    "--detach", is_flag=True, help="Create the job, leave it to the running stack and return."
)
def label(
    spec: JobSpec,
    private: bool,
    config: Path | None,
    server: str,
    home: Path,
    out: Path | None,
    yes: bool,
    detach: bool,
    limits: Limits,
) -> None:
    """Label units of MODEL, and write the results into a folder.

    MODEL and the probe set are names that `dnd targets` lists. On a stack that is started for the
    job (because none is running, or with --private) they may also be specifications: MODEL
    hf:microsoft/resnet-50, and a folder of images as the probe set. After an interruption the same
    command then goes on where it stopped.

    What the job will cost is printed first. Above half an hour the command asks; where nobody can
    be asked it stops, unless --yes is given.

    \b
        dnd label efficientnet_lite0 --layer _conv_head --units 0-15,40 --probe openmoji
        dnd label hf:microsoft/resnet-50 --layer resnet.encoder.stages.3 --probe ~/pictures
        dnd label efficientnet_lite0 --layer _conv_head --probe openmoji --method clip-dissect
    """
    spec = replace(spec, limits=limits)
    with connected_or_private(server, home, private=private, config=config) as session:
        if session.private:
            spec = make_absolute(spec)
            if detach:
                raise FailedPrecondition("--detach needs a stack that stays: start one, `dnd up`.")
        spec = send_concepts(session, spec)
        print_estimate(session.client.estimate(spec), spec, ask=not yes)
        job = create_job(session, spec)
        target = out or Path("results") / job.id
        if detach:
            say(f"Job {job.id} is {job.state.value}. Watch it with `dnd watch {job.id}`.")
            return
        try:
            job = follow(session.client, job.id, warn_of_death(session))
        except KeyboardInterrupt:
            _say_how_to_go_on(session, job, target)
            raise
        say(headline(job))
        written = write_results(session.client, job, target)
        names = class_names(session, job)
    shown = written.labels.lines[:MAX_PRINTED]
    rows = [label_row(record, bool(names)) for record in written.labels.read(shown)]
    print_table(label_headers(bool(names)), rows, right=("Unit", "Percentile", "AUC"))
    if len(written.labels.lines) > MAX_PRINTED:
        say(f"and {len(written.labels.lines) - MAX_PRINTED} more units")
    say(f"{written.report}")
    finish(job)


@click.command()
@spec_options
@click.option(
    "--simulate",
    is_flag=True,
    help="How long it would take with other numbers of replicas, from the times measured here.",
)
@click.option(
    "--stage", default="synthesize", show_default=True, help="The stage that gets other numbers."
)
@click.option(
    "--within-h",
    type=click.FloatRange(min=0, min_open=True),
    metavar="HOURS",
    help="Say how many replicas of that stage end the job in this time, and what each needs.",
)
def estimate(
    spec: JobSpec,
    private: bool,
    config: Path | None,
    server: str,
    home: Path,
    simulate: bool,
    stage: str,
    within_h: float | None,
) -> None:
    """Print what labelling would cost, without doing it.

    Takes what `dnd label` takes. The time is that of the stages as they were measured here, or a
    guess as long as nothing has been measured.
    """
    with connected_or_private(
        server, home, private=private, config=config, only=NEEDED_TO_PLAN
    ) as session:
        if session.private:
            spec = make_absolute(spec)
        spec = send_concepts(session, spec)
        found = session.client.estimate(spec)
    print_estimate(found, spec, ask=False)
    if simulate or within_h is not None:
        print_simulation(found, stage, within_h)


@click.command()
@click.argument("name", required=False, default="")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def profiles(name: str, as_json: bool) -> None:
    """List the profiles, or print all settings of the one called NAME.

    A profile is the settings of the method: paper as published, default with our corrections,
    starter for the small models of the starter pack. `dnd label --set` changes single settings.
    """
    if not name:
        print_table(
            ("Profile", "Candidates", "Drawings", "Steps", "Size", "Selected by"),
            [
                (
                    one.name,
                    one.propose.max_candidates,
                    one.synthesis.num_images,
                    one.synthesis.num_steps,
                    one.synthesis.size,
                    one.score.function.value,
                )
                for one in PROFILES.values()
            ],
            right=("Candidates", "Drawings", "Steps", "Size"),
        )
        return
    data = json.loads(to_json(get_profile(name)))
    text = json.dumps(data, indent=2) if as_json else yaml.safe_dump(data, sort_keys=False)
    click.echo(text.rstrip())


def print_estimate(found: Estimate, spec: JobSpec, *, ask: bool) -> None:
    """Says what a job will cost, and asks where it takes long.

    Raises:
        FailedPrecondition: It takes long, and nobody is there to be asked.
        click.Abort: The answer was no.
    """
    duration_s, measured = found.duration_s, True
    if not duration_s:
        duration_s, measured = guess_duration_s(found, spec), False
    how = "as measured here" if measured else "a first guess for two CPU cores"
    say(
        f"{found.num_units:,} units: {found.num_probe_images:,} images to index, "
        f"{found.num_captions:,} captions, {found.num_llm_calls:,} LLM calls, at most "
        f"{found.num_drawings:,} drawings; about {format_duration(duration_s)} ({how})"
    )
    dollars = f" (${found.dollars:,.2f})" if found.has_price else ""
    hours = f"{found.gpu_hours:,.2f} hours of devices, " if found.gpu_hours else ""
    say(
        f"about {found.num_input_tokens + found.num_output_tokens:,} tokens{dollars}, {hours}"
        f"at most {format_bytes(found.num_stored_bytes)} of storage"
    )
    if found.num_skipped_images:
        say(f"{found.num_skipped_images} files of the probe set are no readable image: left out")
    if not ask or duration_s <= ASK_ABOVE_S:
        return
    if not can_ask():
        raise FailedPrecondition(
            f"This takes about {format_duration(duration_s)}, and nobody can be asked: add --yes "
            "to do it all the same, or --units to label fewer."
        )
    click.confirm("Go on?", abort=True)


def print_simulation(found: Estimate, stage: str, within_h: float | None) -> None:
    """Prints how long a job would take with 1, 2, 4, … replicas of a stage.

    With `within_h` also what each stage needs for a job that ends within so many hours.

    Raises:
        FailedPrecondition: A stage has not been measured yet.
    """
    rows = []
    for num in SIMULATED_REPLICAS:
        simulated = simulation.simulate(found.stages, found.num_units, {stage: num})
        busy = f"{simulated.limit} ({simulated.busy[simulated.limit]:.0%})"
        rows.append((num, format_duration(simulated.duration_s), busy))
    headers = (f"Replicas of {stage}", "Time", "Busiest stage")
    print_table(headers, rows, right=headers[:2])
    if within_h is None:
        return
    sizes = simulation.size_stages(found.stages, within_h * 3600)
    columns = ("Stage", "Items", "s per item", "Replica-hours", f"Replicas for {within_h:g} h")
    print_table(
        columns,
        [
            (
                one.stage,
                f"{one.num_items:,.0f}",
                f"{one.item_s:.3g}",
                f"{one.work_s / 3600:,.2f}",
                one.replicas,
            )
            for one in sizes
        ],
        right=columns[1:],
    )
    fewest = simulation.fewest_replicas(found.stages, found.num_units, stage, within_h * 3600)
    if fewest is None:
        limit = simulation.simulate(found.stages, found.num_units, {stage: SIMULATED_REPLICAS[-1]})
        say(
            f"No number of replicas of {stage} ends it within {within_h:g} h: "
            f"then {limit.limit} is the limit."
        )
    else:
        say(f"{fewest} replicas of {stage} end it within {within_h:g} h.")


def guess_duration_s(found: Estimate, spec: JobSpec) -> float:
    """Seconds that a job may take where nothing has been measured yet: two CPU cores, small models.

    Drawings cost what their pixels and steps cost; the rest is about the same in all profiles.
    """
    synthesis = get_profile(spec.profile, spec.overrides).synthesis
    drawing_s = 0.12 * (synthesis.size / 64) ** 2 * synthesis.num_steps / 10
    return (
        20.0
        + found.num_probe_images / 40
        + found.num_captions * 0.1
        + found.num_llm_calls * 0.3
        + found.num_drawings * 0.7 * drawing_s
    )


def send_concepts(session: Session, spec: JobSpec) -> JobSpec:
    """The specification with a concept set that the server has, where it names a file here."""
    path = Path(spec.concept_set).expanduser()
    if spec.concept_set in ("", *NAMES) or spec.concept_set.startswith("sha256:"):
        return spec
    kept = session.client.create_concept_set(path.name, read_concepts(path))
    left_out = f"; {kept.num_blank} blank lines and {kept.num_repeated} repeats left out"
    say(
        f"{path}: {kept.num_concepts:,} concepts"
        f"{left_out if kept.num_blank or kept.num_repeated else ''}"
    )
    return replace(spec, concept_set=kept.concept_set)


def create_job(session: Session, spec: JobSpec) -> Job:
    """A new job; on a private stack the one that the same command has begun, if there is one."""
    if not session.private or session.config is None:
        return session.client.create_job(spec)
    for attempt in count():
        request_id = digest_of(VERSION, session.config.to_yaml(), spec, attempt)[:40]
        job = session.client.create_job(spec, request_id)
        if job.state in (JobState.CANCELLED, JobState.FAILED):
            continue
        if job.num_ended:
            say(f"Going on with job {clean(job.id)}: {job.num_ended} of {job.num_units} units.")
        if job.state is JobState.COMPLETED and job.num_failed:
            say(f"Its {job.num_failed} failed units are run again.")
            return session.client.retry_job(job.id)
        return session.client.resume_job(job.id) if _was_paused(job) else job
    raise AssertionError("count() does not end")


def _was_paused(job: Job) -> bool:
    """Whether a person has paused the job, rather than a stage that waits for an operator."""
    return job.state is JobState.PAUSED and not job.pause_reason


def _say_how_to_go_on(session: Session, job: Job, out: Path) -> None:
    if session.private:
        say("Stopping. The same command goes on where this one stopped; nothing done is lost.")
        return
    say(
        f"The job goes on. Come back with `dnd watch {job.id}`; `dnd export {job.id} --out {out}` "
        f"writes the results, `dnd cancel {job.id}` ends it."
    )
