"""dnd cluster: a deployment on Kubernetes."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dnd.cli.console import format_duration, print_table, say, warn
from dnd.cluster import ClusterApi, Rollout, Snapshot, examine, read_manifests, read_snapshot
from dnd.cluster.doctor import EXPECTED
from dnd.cluster.manifests import INSTALLED_BY, KINDS, path_of
from dnd.cluster.snapshot import PAUSED, component_of, ended_as, rollout_of
from dnd.errors import DeadlineExceeded, FailedPrecondition, NotFound, UnknownName, suggest

_LOOK_EVERY_S = 2.0


def _cluster_options(command: Callable[..., None]) -> Callable[..., None]:
    """--namespace and --context, given to the command as `api`."""

    @functools.wraps(command)
    def connected(*args: Any, namespace: str, context: str, **kwargs: Any) -> None:
        command(*args, api=ClusterApi.connect(namespace, context), **kwargs)

    connected = click.option("--context", default="", help="Context of kubectl's configuration.")(
        connected
    )
    return click.option(
        "--namespace", "-n", default="dnd", show_default=True, help="Where the deployment is."
    )(connected)


@click.group()
def cluster() -> None:
    """Look at a deployment on Kubernetes, and act on it (docs/deploy.md)."""


@cluster.command()
@_cluster_options
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.option("--force", is_flag=True, help="Take over fields that somebody else manages.")
def apply(api: ClusterApi, source: Path, force: bool) -> None:
    """Bring the cluster to what SOURCE says: an overlay's folder, or a YAML file.

    Jobs that have ended are made anew where they differ, since the cluster does not change them.
    """
    manifests = read_manifests(source)
    _expect_kinds(api, {str(one["kind"]) for one in manifests})
    for manifest in manifests:
        try:
            api.apply(manifest, force=force)
        except FailedPrecondition:
            if manifest["kind"] != "Job" or not _has_ended(api, manifest):
                raise
            _replace_job(api, manifest)
        say(f"{manifest['kind'].lower()}/{manifest['metadata']['name']}")
    say(f"{len(manifests)} objects applied. Next: dnd cluster wait")


def _expect_kinds(api: ClusterApi, kinds: set[str]) -> None:
    """Raises FailedPrecondition if the cluster lacks an API, before anything is sent to it."""
    for needed, installer in INSTALLED_BY.items():
        asked = sorted(kind for kind in kinds if KINDS[kind][0] == needed)
        if asked and not api.knows(f"/{needed}"):
            raise FailedPrecondition(
                f"The cluster knows no {' and no '.join(asked)}: install {installer}, or leave "
                "the component that has them out of your overlay (docs/deploy.md). Nothing was "
                "applied."
            )


def _has_ended(api: ClusterApi, manifest: dict[str, Any]) -> bool:
    return bool(ended_as(api.get(path_of(manifest, api.namespace))))


def _replace_job(api: ClusterApi, manifest: dict[str, Any]) -> None:
    where = path_of(manifest, api.namespace)
    api.delete(where)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            api.get(where)
        except NotFound:
            api.apply(manifest)
            return
        time.sleep(_LOOK_EVERY_S)
    raise DeadlineExceeded(f"{where} is being removed for a minute: try again.")


@cluster.command()
@_cluster_options
def status(api: ClusterApi) -> None:
    """Show services, replicas, GPUs and what waits for them."""
    snapshot = read_snapshot(api)
    if not snapshot.deployments:
        raise NotFound(f"Nothing is deployed in the namespace {api.namespace}.")
    rows = [
        (
            one.name,
            f"{one.available}/{one.desired}",
            one.num_gpus * one.available or "",
            _state(one),
        )
        for one in snapshot.rollouts
    ]
    print_table(("name", "ready", "GPUs", "state"), rows, right=("ready", "GPUs"))
    _say_backlog(snapshot)
    if found := examine(snapshot):
        warn(f"{len(found)} things are wrong: dnd cluster doctor")


def _state(rollout: Rollout) -> str:
    if rollout.problem:
        return rollout.problem
    if rollout.is_done:
        return "idle, scaled to zero" if rollout.desired == 0 else "ready"
    return f"rolling out, {rollout.updated} of {rollout.desired} updated"


def _say_backlog(snapshot: Snapshot) -> None:
    if not snapshot.backlog:
        say("What waits is unknown: no coordinator could be asked.")
        return
    waiting = {stage: seconds for stage, seconds in snapshot.backlog.items() if seconds > 0}
    parts = [f"{stage} {format_duration(seconds)}" for stage, seconds in waiting.items()]
    say("Work that waits: " + (", ".join(parts) or "none"))


@cluster.command()
@_cluster_options
@click.argument("name")
@click.argument("replicas", type=click.IntRange(0))
def scale(api: ClusterApi, name: str, replicas: int) -> None:
    """Set the REPLICAS of a service or worker NAME.

    Where KEDA scales it, it is held at that number until `dnd cluster pause-autoscaling --resume`;
    a plain HorizontalPodAutoscaler changes it again, but for 0.
    """
    _expect_deployment(name)
    if api.knows(f"{api.keda}/{name}"):
        _annotate(api, name, str(replicas))
        say(f"{name}: {replicas} replicas; its autoscaler is paused.")
        return
    api.merge(f"{api.apps}/deployments/{name}/scale", {"spec": {"replicas": replicas}})
    if not api.knows(f"{api.autoscalers}/{name}"):
        say(f"{name}: {replicas} replicas.")
    elif replicas:
        say(f"{name}: {replicas} replicas, until its autoscaler decides otherwise.")
    else:
        say(f"{name}: 0 replicas; its autoscaler rests until it is scaled up again.")


@cluster.command("pause-autoscaling")
@_cluster_options
@click.option(
    "--replicas",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="What everything is held at.",
)
@click.option("--resume", is_flag=True, help="Let the autoscalers decide again.")
def pause_autoscaling(api: ClusterApi, replicas: int, resume: bool) -> None:
    """Hold everything that KEDA scales at a number of replicas."""
    names = [str(one["metadata"]["name"]) for one in api.list(api.keda)]
    if not names:
        raise NotFound(
            f"There are no ScaledObjects in the namespace {api.namespace}: KEDA scales nothing."
        )
    for name in names:
        _annotate(api, name, None if resume else str(replicas))
    held = "decided by KEDA again" if resume else f"held at {replicas}"
    say(f"{len(names)} autoscalers: replicas are {held}.")


def _annotate(api: ClusterApi, name: str, replicas: str | None) -> None:
    api.merge(f"{api.keda}/{name}", {"metadata": {"annotations": {PAUSED: replicas}}})


@cluster.command()
@_cluster_options
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0),
    metavar="SECONDS",
    default=1200.0,
    show_default=True,
    help="Give up after this time.",
)
def wait(api: ClusterApi, timeout_s: float) -> None:
    """Wait until every Deployment is as it was asked for, and every Job is complete."""
    until = time.monotonic() + timeout_s
    while True:
        rollouts = [rollout_of(one) for one in api.list(f"{api.apps}/deployments")]
        jobs = {str(one["metadata"]["name"]): ended_as(one) for one in api.list(api.jobs)}
        broken = [f"{one.name}: {one.problem}" for one in rollouts if one.problem]
        broken += [f"job {name} has failed" for name, how in jobs.items() if how == "Failed"]
        if broken:
            raise FailedPrecondition("; ".join(broken) + ". See dnd cluster doctor.")
        left = [one.name for one in rollouts if not one.is_done]
        left += [f"job {name}" for name, how in jobs.items() if not how]
        if rollouts and not left:
            say(f"{len(rollouts)} Deployments are ready.")
            return
        if time.monotonic() >= until:
            raise DeadlineExceeded(
                f"After {timeout_s:.0f} s {', '.join(left) or 'nothing'} "
                f"{'is' if len(left) < 2 else 'are'} not ready. See dnd cluster doctor."
            )
        time.sleep(_LOOK_EVERY_S)


@cluster.command()
@_cluster_options
@click.argument("name")
@click.option(
    "--tail",
    type=click.IntRange(1),
    default=50,
    show_default=True,
    metavar="LINES",
    help="Lines of each pod.",
)
@click.option("--previous", is_flag=True, help="Of the container before the last restart.")
def logs(api: ClusterApi, name: str, tail: int, previous: bool) -> None:
    """Show the end of the logs of all pods of a service, worker or job NAME."""
    pods = [one for one in api.list(f"{api.root}/pods") if component_of(one) == name]
    if not pods:
        raise NotFound(f"No pod of {name} is there (dnd cluster status).")
    for pod in pods:
        pod_name = pod["metadata"]["name"]
        say(f"== {pod_name}")
        query = {"tailLines": str(tail)} | ({"previous": "true"} if previous else {})
        click.echo(api.text(f"{api.root}/pods/{pod_name}/log", **query), nl=False)


@cluster.command()
@_cluster_options
def doctor(api: ClusterApi) -> None:
    """Say what is wrong with the deployment, and what to do."""
    found = examine(read_snapshot(api))
    for one in found:
        say(f"{one.where}: {one.what}\n    -> {one.remedy}")
    if found:
        raise FailedPrecondition(f"{len(found)} things are wrong.")
    say("Nothing is wrong that can be seen from here.")


def _expect_deployment(name: str) -> None:
    if name not in EXPECTED:
        raise UnknownName(suggest(name, list(EXPECTED), what="service or worker"))
