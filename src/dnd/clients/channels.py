"""Channels to the replicas of a service, and the errors that come back through them."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias, cast

import grpc

from dnd.errors import BadSetting, DndError, from_wire
from dnd.serving.interceptor import REASON_KEY, RETRY_KEY
from dnd.serving.server import CHANNEL_OPTIONS
from dnd.tls import TlsFiles

DEADLINE_S = 90.0
RESOLVE_EVERY_S = 5.0
_CLIENT_OPTIONS = (
    *CHANNEL_OPTIONS,
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_retries", 0),
    # A service that comes back after hours is noticed as soon as one that comes back after seconds.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


_Key: TypeAlias = tuple[str, tuple[int, ...]]


class EndpointPool:
    """Channels to all replicas of one service; each call takes the one with fewest calls under way.

    Args:
        name: Name of the service, for messages.
        target: "host:port", several of them with commas, "dns:host:port" (every address behind the
            name), or "file:/path", a JSON file with "address" or "addresses". Read again every 5 s.
        tls: What is shown to the service and expected of it; None for no TLS.
    """

    def __init__(self, name: str, target: str, tls: TlsFiles | None = None) -> None:
        if not target:
            raise BadSetting(f"No address of the {name} service is set: expected 'host:port'.")
        self.name = name
        self.target = target
        self._tls = tls
        self._version: tuple[int, ...] = ()
        self._lock = threading.Lock()
        # By address, and with TLS by the version of the certificates that the channel shows.
        self._channels: dict[_Key, grpc.Channel] = {}
        self._outstanding: dict[_Key, int] = {}
        self._resolved_at = -RESOLVE_EVERY_S

    @contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """A channel to the least busy replica, counted as busy until the block ends."""
        with self._lock:
            self._refresh()
            if not self._channels:
                raise from_wire(
                    "Unavailable", "", f"{self.name}: nothing listens at {self.target}."
                )
            key = min(self._channels, key=lambda k: self._outstanding[k])
            self._outstanding[key] += 1
            channel = self._channels[key]
        try:
            yield channel
        finally:
            with self._lock:
                if key in self._outstanding:
                    self._outstanding[key] -= 1

    @property
    def num_replicas(self) -> int:
        """Addresses that are known now."""
        with self._lock:
            self._refresh()
            return len({address for address, _ in self._channels})

    def close(self) -> None:
        with self._lock:
            for channel in self._channels.values():
                channel.close()
            self._channels.clear()

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._resolved_at < RESOLVE_EVERY_S and self._channels:
            return
        self._resolved_at = now
        version = self._certificates()
        keys = [(address, version) for address in self._resolve()]
        for key in keys:
            if key not in self._channels:
                self._channels[key] = self._connect(key[0])
                self._outstanding[key] = 0
        for key in set(self._channels) - set(keys):
            if not self._outstanding[key]:
                self._channels.pop(key).close()
                del self._outstanding[key]

    def _certificates(self) -> tuple[int, ...]:
        """The version of the certificates; the one before while they are being replaced."""
        if self._tls:
            with suppress(OSError):
                self._version = self._tls.version()
        return self._version

    def _connect(self, address: str) -> grpc.Channel:
        if self._tls is None:
            return grpc.insecure_channel(address, options=_CLIENT_OPTIONS)
        options: list[tuple[str, str | int]] = list(_CLIENT_OPTIONS)
        if self.target.startswith("dns:"):  # the certificate is for the name, not for the address
            name = self.target.removeprefix("dns:").rpartition(":")[0]
            options.append(("grpc.ssl_target_name_override", name))
        return grpc.secure_channel(address, self._tls.channel_credentials(), options=options)

    def _resolve(self) -> list[str]:
        if self.target.startswith("file:"):
            try:
                data = json.loads(Path(self.target.removeprefix("file:")).read_text())
            except (OSError, json.JSONDecodeError):
                return []
            return list(data["addresses"] if "addresses" in data else [data["address"]])
        if self.target.startswith("dns:"):
            host, _, port = self.target.removeprefix("dns:").rpartition(":")
            try:
                infos = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
            except OSError:
                return []
            return sorted(
                {
                    f"[{i[4][0]}]:{port}" if ":" in str(i[4][0]) else f"{i[4][0]}:{port}"
                    for i in infos
                }
            )
        return [part.strip() for part in self.target.split(",")]


def error_of(error: grpc.RpcError, service: str) -> DndError:
    """The error of `dnd.errors` behind a failed call."""
    assert isinstance(error, grpc.Call)
    trailers = dict(cast("list[tuple[str, str]]", error.trailing_metadata() or ()))
    code = error.code().name
    details = error.details() or code
    reason = trailers.get(REASON_KEY, "")
    pushback = trailers.get(RETRY_KEY)
    if not reason and code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        details = f"The {service} service did not answer: {details}"
    if code == "UNIMPLEMENTED":
        details = (
            f"The {service} service does not know this method: it is of an older version than its "
            "caller. Upgrade it."
        )
    return from_wire(
        reason, code, details, retry_after_s=int(pushback) / 1000 if pushback else None
    )
