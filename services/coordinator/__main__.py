"""The coordinator process: `python -m dnd_services.coordinator`."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import sys
from collections.abc import Mapping

import grpc

from dnd.bucket_artifacts import open_artifacts
from dnd.clients import Services
from dnd.serving import Metrics, StageService, run
from dnd.v1 import coordinator_pb2_grpc
from dnd_services.coordinator.access import Gate, gated_servicer
from dnd_services.coordinator.budgets import read_budgets
from dnd_services.coordinator.celery_app import make_app, publish
from dnd_services.coordinator.dispatcher import SILENT_BEATS, Dispatcher
from dnd_services.coordinator.heap import freeze_heap
from dnd_services.coordinator.leader import Leader
from dnd_services.coordinator.migrate import migrate
from dnd_services.coordinator.nudge import Nudge
from dnd_services.coordinator.reconciler import Reconciler
from dnd_services.coordinator.record_metrics import RecordCollector
from dnd_services.coordinator.servicer import CoordinatorServicer
from dnd_services.coordinator.settings import CoordinatorSettings
from dnd_services.coordinator.store import Store
from dnd_services.coordinator.waiting import Waiting
from dnd_services.coordinator.web.app import create_app
from dnd_services.coordinator.web.serving import WebServer


def build(settings: CoordinatorSettings, metrics: Metrics) -> StageService:
    """Brings the record up to date, starts the dispatcher and makes the API."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    store = Store(settings.database)
    migrate(store)
    artifacts = open_artifacts(settings.artifacts)
    budgets = read_budgets(settings.budgets)
    services = Services.connect(
        settings.targets, artifacts, deadline_s=settings.rpc_deadline_s, tls=settings.tls
    )
    app = make_app(settings.redis)
    nudge, waiting = Nudge(settings.redis), Waiting(settings.redis)
    metrics.registry.register(RecordCollector(store, settings.heartbeat_s * SILENT_BEATS))
    leader = Leader(
        store,
        settings,
        Dispatcher(store, settings, lambda task: publish(app, task), artifacts, budgets),
        Reconciler(store, settings, waiting.tickets),
        nudge,
        owner=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}",
    )
    servicer = CoordinatorServicer(store, services, settings, nudge.ring, budgets)
    gate = Gate(store, settings)
    web = WebServer(
        create_app(servicer, gate, metrics), settings.host, settings.web_port, settings.tls
    )
    leader.start()

    def add(server: grpc.aio.Server) -> None:
        coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(
            gated_servicer(servicer, gate), server
        )

    async def start() -> Mapping[str, str]:
        await web.start()
        freeze_heap()
        return {"web": web.url}

    async def close() -> None:
        await web.close()
        await asyncio.to_thread(leader.close)
        servicer.close()
        services.close()
        app.close()
        nudge.close()
        waiting.close()
        store.close()

    return StageService("dnd.v1.CoordinatorService", add, close, start)


if __name__ == "__main__":
    sys.exit(run("coordinator", CoordinatorSettings, build))
