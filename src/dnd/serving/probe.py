"""Asks the process in the same container whether it is well: HEALTHCHECK of the images.

    python -m dnd.serving.probe       # exit status 0 if it is

A server answers gRPC health on DND_PORT, or with TLS on DND_HEALTH_PORT; a worker (DND_STAGE) shows
its metrics on DND_METRICS_PORT.
"""

from __future__ import annotations

import os
import sys
import urllib.request
from collections.abc import Mapping

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_ANSWER_S = 5.0


def is_well(environ: Mapping[str, str]) -> bool:
    """Whether the process with these variables serves."""
    if environ.get("DND_STAGE"):
        return _answers_http(environ.get("DND_METRICS_PORT", ""))
    variable = "DND_HEALTH_PORT" if environ.get("DND_TLS_CERT") else "DND_PORT"
    return _serves(environ.get(variable, ""))


def _answers_http(port: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=_ANSWER_S) as page:
            return bool(page.status == 200)
    except OSError:
        return False


def _serves(port: str) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_ANSWER_S)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    sys.exit(0 if is_well(os.environ) else 1)
