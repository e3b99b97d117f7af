"""The Celery application: it carries task messages and knows nothing else.

During a rolling upgrade coordinators and workers of two versions share the queues. A message says
which version it is of: one that a worker does not know it puts back for those that do.

With Redis it can lose tasks and repeat them; the record survives both (`claiming`, `reconciler`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from celery import Celery
from kombu.entity import Queue

from dnd import telemetry
from dnd.errors import Unavailable
from dnd_services.coordinator.store.claims import Ticket

RUN = "dnd.run"
"""Name of the one task: (stage, [[id, fence], …])."""
MESSAGE_VERSION = 1
"""Goes up when workers of the version before could not read a message, or would misread it."""
VERSION_HEADER = "dnd-version"


@dataclass(frozen=True)
class Task:
    """Tickets of one stage that one worker thread works off.

    Attributes:
        job: The job that it was put together for.
        trace: The job's `traceparent`; empty for none.
    """

    stage: str
    is_batch: bool
    tickets: tuple[Ticket, ...]
    job: str = ""
    trace: str = ""

    @property
    def queue(self) -> str:
        return queue_name(self.stage, is_batch=self.is_batch)


def queue_name(stage: str, *, is_batch: bool) -> str:
    """Interactive and batch work of a stage wait in queues of their own."""
    return f"dnd.{stage}.{'batch' if is_batch else 'interactive'}"


def make_app(redis_url: str) -> Celery:
    """An application on the broker at `redis_url`; nothing is connected yet."""
    app = Celery("dnd", broker=redis_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        result_backend=None,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_create_missing_queues=True,
        # A worker takes as many messages as it has free threads. kombu's own limit stays off: it
        # never gives back the credit of a message whose acknowledgement failed as the broker was
        # away, so that a worker would be connected but deaf ever after.
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=0,
        worker_eta_task_limit=100,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            # Above the longest task. What a dead worker held comes back through the record long
            # before; the message that Redis gives back after that is a duplicate.
            "visibility_timeout": 3600,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 10,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "queue_order_strategy": "priority",
        },
    )
    return app


def queues_of(stages: Sequence[str]) -> list[Queue]:
    """What a worker of `stages` consumes, interactive work before batch work."""
    return [
        Queue(
            queue_name(stage, is_batch=is_batch), routing_key=queue_name(stage, is_batch=is_batch)
        )
        for is_batch in (False, True)
        for stage in stages
    ]


def publish(app: Celery, task: Task) -> None:
    """Sends a task message. What is sent was committed before.

    Raises:
        Unavailable: The broker cannot be reached.
    """
    items = [[ticket.id, ticket.fence] for ticket in task.tickets]
    attributes: dict[str, telemetry.Value] = {
        "dnd.job": task.job,
        "dnd.stage": task.stage,
        "dnd.num_items": len(items),
        "messaging.system": "celery",
        "messaging.destination.name": task.queue,
    }
    with telemetry.span(f"publish {task.stage}", telemetry.PRODUCER, task.trace, attributes):
        headers = {
            VERSION_HEADER: MESSAGE_VERSION,
            telemetry.TRACEPARENT: telemetry.traceparent() or task.trace,
        }
        try:
            app.send_task(
                RUN, args=[task.stage, items], headers=headers, queue=task.queue, retry=False
            )
        except Exception as error:  # kombu's, redis-py's and the socket's own classes
            raise Unavailable(f"The broker cannot be reached: {error}") from error


def is_known(headers: Mapping[str, Any] | None) -> bool:
    """Whether a message is of a version that this one reads; the first one had no header."""
    return int((headers or {}).get(VERSION_HEADER, 1)) <= MESSAGE_VERSION


def read_tickets(items: Any) -> list[Ticket]:
    """Tickets of a task message."""
    return [Ticket(int(row_id), int(fence)) for row_id, fence in items]
