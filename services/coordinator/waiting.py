"""Which task messages wait in the broker: what has been sent and waits nowhere may be lost."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import redis

from dnd.errors import Unavailable
from dnd_services.coordinator.celery_app import queue_name, read_tickets
from dnd_services.coordinator.store.claims import Ticket


class Waiting:
    """Looks into the queues of the broker at `url`; it takes nothing out of them."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(
            url, socket_timeout=10, socket_connect_timeout=3, health_check_interval=10
        )

    def tickets(self, stage: str) -> set[Ticket]:
        """Tickets of all messages of a stage that no worker has taken.

        Raises:
            Unavailable: The broker cannot be reached.
        """
        found: set[Ticket] = set()
        try:
            for is_batch in (False, True):
                messages: Any = self._redis.lrange(queue_name(stage, is_batch=is_batch), 0, -1)
                for message in messages:
                    found.update(_tickets_of(message))
        except redis.RedisError as error:
            raise Unavailable(f"The broker cannot be reached: {error}") from error
        return found

    def close(self) -> None:
        self._redis.close()


def _tickets_of(message: bytes) -> list[Ticket]:
    """Tickets of a message as Celery's protocol 2 and kombu's Redis transport write it.

    A message of somebody else, or of a version that writes them differently, counts for nothing:
    what it stands for is sent again.
    """
    try:
        (_, items), *_ = json.loads(b64decode(json.loads(message)["body"]))
        return read_tickets(items)
    except (KeyError, TypeError, ValueError):
        return []
