"""Tells the dispatcher that something has changed, so that it need not look all the time."""

from __future__ import annotations

import logging
import time

import redis

log = logging.getLogger(__name__)

_KEY = "dnd:nudge"


class Nudge:
    """A bell on Redis. It may get lost: the dispatcher looks by itself too, only less often."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(
            url, socket_timeout=10, socket_connect_timeout=3, health_check_interval=10
        )

    def ring(self) -> None:
        """Wakes the dispatcher; several rings before it looks are one."""
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.lpush(_KEY, 1)
                pipeline.ltrim(_KEY, 0, 0)
                pipeline.execute()
        except redis.RedisError as error:
            log.debug("the dispatcher could not be woken: %s", error)

    def wait(self, timeout_s: float) -> None:
        """Returns when somebody rings, or after `timeout_s`."""
        try:
            self._redis.blpop([_KEY], timeout=timeout_s)
        except redis.RedisError as error:
            log.debug("cannot listen: %s", error)
            time.sleep(timeout_s)

    def close(self) -> None:
        self._redis.close()
