"""A worker process: `python -m dnd_services.coordinator.worker --stage caption --threads 4`.

It consumes the queues of its stage with a pool of threads, since its tasks are gRPC calls: no fork,
and one set of channels per process.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from celery import Celery
from celery.apps import worker as celery_worker
from celery.concurrency.thread import TaskPool
from celery.exceptions import Reject, SecurityWarning
from celery.signals import worker_ready
from kombu.asynchronous import get_event_loop

from dnd import logs, telemetry
from dnd import settings as settings_module
from dnd.bucket_artifacts import open_artifacts
from dnd.clients import Services
from dnd.errors import DndError
from dnd_services.coordinator.celery_app import (
    RUN,
    VERSION_HEADER,
    is_known,
    make_app,
    queue_name,
    queues_of,
    read_tickets,
)
from dnd_services.coordinator.heap import freeze_heap
from dnd_services.coordinator.keeper import LeaseKeeper
from dnd_services.coordinator.migrate import wait_for_tables
from dnd_services.coordinator.nudge import Nudge
from dnd_services.coordinator.settings import WorkerSettings
from dnd_services.coordinator.store import Store
from dnd_services.coordinator.tasks import TaskRunner
from dnd_services.coordinator.worker_metrics import WorkerMetrics

log = logging.getLogger(__name__)

_WAIT_FOR_TABLES_S = 60.0
_BEFORE_PUTTING_BACK_S = 1.0
"""So that workers of another version take the message, and not this one again at once."""


class WakingThreads(TaskPool):
    """Threads that wake Celery's loop when a task ends: it asks for the next message only then.

    Without this the loop notices a free thread when one of its timers fires, up to a second later.
    """

    def on_apply(self, *args: Any, **kwargs: Any) -> Any:
        result = super().on_apply(*args, **kwargs)
        result.f.add_done_callback(_wake)
        return result


def _wake(_done: Future[Any]) -> None:
    loop = get_event_loop()
    if loop is not None:
        loop.call_soon(lambda: None)


def main(argv: Sequence[str] | None = None) -> int:
    """Works until SIGTERM or SIGINT; running tasks finish first. Returns the exit status."""
    try:
        settings = settings_module.load(WorkerSettings, argv, prog="worker")
        logs.set_up(f"worker-{settings.stage}", settings.log_level, settings.log_format)
        telemetry.start(f"worker-{settings.stage}")
        for name in ("alembic", "celery.worker.strategy", "celery.app.trace"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # It prints to stdout, past the log, that SIGTERM has come.
        celery_worker.safe_say = lambda message, *_: log.info("%s", message)
        # It warns root of unpickling messages; ours are JSON.
        warnings.simplefilter("ignore", SecurityWarning)
        return _work(settings)
    except DndError as error:
        logs.say_why("worker", error.message)
        return 2
    finally:
        telemetry.stop()


def _work(settings: WorkerSettings) -> int:
    store = Store(settings.database)
    artifacts = open_artifacts(settings.artifacts)
    services = Services.connect(
        settings.stage_targets,
        artifacts,
        deadline_s=settings.rpc_deadline_s,
        tls=settings.tls,
    )
    nudge = Nudge(settings.redis)
    wait_for_tables(store, _WAIT_FOR_TABLES_S)
    owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
    keeper = LeaseKeeper(store, settings, owner, settings.stages, settings.threads)
    metrics = WorkerMetrics()
    runner = TaskRunner(
        store, services, settings, keeper, owner, nudge.ring, metrics.count_failures
    )
    app = make_app(settings.redis)
    app.conf.task_queues = queues_of(settings.stages)
    _add_task(app, runner, metrics)

    def announce(**_: Any) -> None:
        keeper.start()
        nudge.ring()
        if settings.metrics_port:
            metrics.serve(settings.host, settings.metrics_port)
        freeze_heap()
        _write_endpoints(settings)
        log.info("working for %s in %d threads", ", ".join(settings.stages), settings.threads)

    worker_ready.connect(announce, weak=False)
    worker = app.Worker(
        hostname=f"{settings.stage}@{owner}",
        pool=WakingThreads,
        concurrency=settings.threads,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
        loglevel=settings.log_level,
    )
    try:
        worker.start()
    finally:
        keeper.close()
        services.close()
        nudge.close()
        store.close()
    return int(worker.exitcode or 0)


def _add_task(app: Celery, runner: TaskRunner, metrics: WorkerMetrics) -> None:
    @app.task(name=RUN, bind=True, acks_late=True, ignore_result=True)  # type: ignore[untyped-decorator]
    def run(task: Any, *args: Any) -> None:
        headers = task.request.headers or {}
        if not is_known(headers):
            log.warning("a task message of version %s is put back", headers[VERSION_HEADER])
            time.sleep(_BEFORE_PUTTING_BACK_S)
            raise Reject("of a newer version", requeue=True)
        stage, items = args
        came_from = (task.request.delivery_info or {}).get("routing_key")
        is_urgent = came_from == queue_name(stage, is_batch=False)
        attributes: dict[str, telemetry.Value] = {
            "dnd.stage": stage,
            "dnd.num_items": len(items),
            "messaging.system": "celery",
        }
        parent = headers.get(telemetry.TRACEPARENT, "")
        with telemetry.span(f"process {stage}", telemetry.CONSUMER, parent, attributes):
            metrics.measure(
                stage, lambda: runner.run(stage, read_tickets(items), is_urgent=is_urgent)
            )


def _write_endpoints(settings: WorkerSettings) -> None:
    """Says that the process is ready, all at once, for whoever started it."""
    if settings.endpoints_file:
        path = Path(settings.endpoints_file)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(
            json.dumps(
                {
                    "pid": os.getpid(),
                    "stages": list(settings.stages),
                    "threads": settings.threads,
                }
            )
        )
        draft.replace(path)


if __name__ == "__main__":
    sys.exit(main())
