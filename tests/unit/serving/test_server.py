"""A server process from its first to its last second, with a servicer that needs no model."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from echo_server import PROGRAM, endpoints
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dnd.clients import CaptionerClient, EndpointPool
from dnd.errors import BadImage, DeadlineExceeded, Internal, Overloaded
from dnd.profiles import CaptionSettings
from dnd.serving.metrics import read_counts
from dnd.v1 import captioner_pb2, captioner_pb2_grpc, types_pb2

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start(**settings: str) -> subprocess.Popen[str]:
        environ = {
            "DND_ARTIFACTS": str(tmp_path / "store"),
            "DND_ENDPOINTS_FILE": str(tmp_path / "endpoints.json"),
            **settings,
        }
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={"PATH": "/usr/bin:/bin", **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_server_serves_counts_and_drains(start: Start, tmp_path: Path) -> None:
    process = start()
    where = endpoints(tmp_path)
    with grpc.insecure_channel(where["address"]) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="dnd.v1.CaptionerService")
        assert health.Check(request).status == health_pb2.HealthCheckResponse.SERVING

    pool = EndpointPool("captioner", f"file:{tmp_path / 'endpoints.json'}")
    client = CaptionerClient(pool)
    assert client.caption_images(["a cat"], CaptionSettings()) == ["a cat"]
    with pytest.raises(BadImage, match="a bad image"):
        client.caption_images(["bad"], CaptionSettings())
    with pytest.raises(Overloaded) as busy:
        client.caption_images(["busy"], CaptionSettings())
    assert busy.value.retry_after_s == 1.5
    with pytest.raises(Internal) as defect:
        client.caption_images(["defect"], CaptionSettings())
    assert "secret" not in defect.value.message
    until = time.monotonic() + 10  # a call is counted when its answer is on the way
    while (num_rpcs := read_counts(where["metrics"]).num_rpcs) < 4 and time.monotonic() < until:
        time.sleep(0.05)
    assert num_rpcs == 4

    with grpc.insecure_channel(where["address"]) as channel:
        call = captioner_pb2_grpc.CaptionerServiceStub(channel).CaptionImages.future(
            captioner_pb2.CaptionImagesRequest(images=[types_pb2.Image(ref="slow")])
        )
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert call.result().captions[0].text == "slow"
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "closed\n")
    pool.close()


def test_call_says_which_service_did_not_answer(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    client = CaptionerClient(EndpointPool("captioner", address), deadline_s=0.3)
    with pytest.raises(DeadlineExceeded, match="The captioner service did not answer"):
        client.caption_images(["a"], CaptionSettings())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"DND_HOST": "0.0.0.0"}, "DND_HOST = '0.0.0.0': without authentication"),
        ({"DND_ARTIFACTS": ""}, "DND_ARTIFACTS is not set"),
        ({"DND_PORT": "http"}, "DND_PORT = 'http': expected a number"),
    ],
)
def test_bad_setting_ends_the_process_with_a_sentence(
    start: Start, settings: dict[str, str], message: str
) -> None:
    _, err = (process := start(**settings)).communicate(timeout=20)
    assert process.returncode == 2
    assert message in err
    assert "Traceback" not in err


def test_port_in_use_is_reported_by_name(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        _, err = (process := start(DND_PORT=str(port))).communicate(timeout=20)
    assert process.returncode == 2
    assert f"DND_PORT = {port}: the port is in use" in err


def test_pool_takes_the_least_busy_replica_and_follows_its_file(tmp_path: Path) -> None:
    path = tmp_path / "replicas.json"
    path.write_text(json.dumps({"addresses": ["127.0.0.1:1", "127.0.0.1:2"]}))
    pool = EndpointPool("captioner", f"file:{path}")
    with pool.channel() as first, pool.channel() as second:
        assert first is not second
    path.write_text(json.dumps({"address": "127.0.0.1:3"}))
    pool._resolved_at = -1e9
    with pool.channel() as third:
        assert third not in (first, second)
    pool.close()
