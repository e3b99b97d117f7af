"""Mutual TLS: a server on any address, which only holders of a certificate can call."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import trustme
from echo_server import PROGRAM, endpoints
from fastapi import FastAPI
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dnd.clients import CaptionerClient, EndpointPool
from dnd.errors import BadSetting, DeadlineExceeded, Unavailable
from dnd.profiles import CaptionSettings
from dnd.tls import TlsFiles, tls_files, tls_of_environment
from dnd_services.coordinator.web.serving import WebServer

Start = Callable[..., subprocess.Popen[str]]


def issue(authority: trustme.CA, folder: Path, *names: str) -> TlsFiles:
    """A certificate for `names`, written as Kubernetes mounts it; replaces the one before."""
    folder.mkdir(exist_ok=True)
    found = authority.issue_cert(*names)
    authority.cert_pem.write_to_path(folder / "ca.crt")
    found.private_key_pem.write_to_path(folder / "tls.key")
    found.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    return TlsFiles(str(folder / "tls.crt"), str(folder / "tls.key"), str(folder / "ca.crt"))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the echo server with TLS on every address."""
    started: list[subprocess.Popen[str]] = []

    def start(files: TlsFiles) -> subprocess.Popen[str]:
        environ = {
            "DND_ARTIFACTS": str(tmp_path / "store"),
            "DND_ENDPOINTS_FILE": str(tmp_path / "endpoints.json"),
            "DND_HOST": "0.0.0.0",
            "DND_TLS_CERT": files.cert,
            "DND_TLS_KEY": files.key,
            "DND_TLS_CA": files.ca,
        }
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
                **environ,
            },
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


def ask(target: str, tls: TlsFiles | None, *, deadline_s: float = 10.0) -> object:
    pool = EndpointPool("captioner", target, tls)
    try:
        client = CaptionerClient(pool, deadline_s=deadline_s)
        return client.caption_images(["a cat"], CaptionSettings())[0]
    finally:
        pool.close()


def test_only_callers_with_a_certificate_of_the_authority_are_answered(
    start: Start, tmp_path: Path, authority: trustme.CA
) -> None:
    start(issue(authority, tmp_path / "server", "localhost"))
    where = endpoints(tmp_path)
    port = where["address"].rpartition(":")[2]
    caller = issue(authority, tmp_path / "caller", "caller")
    stranger = issue(trustme.CA(), tmp_path / "stranger", "caller")
    trusting = TlsFiles(stranger.cert, stranger.key, caller.ca)
    assert ask(f"localhost:{port}", caller) == "a cat"
    assert ask(f"dns:localhost:{port}", caller) == "a cat"
    for other in (None, stranger, trusting):
        with pytest.raises((DeadlineExceeded, Unavailable)):
            ask(f"localhost:{port}", other, deadline_s=1.0)
    with pytest.raises((DeadlineExceeded, Unavailable)):  # the certificate is for another name
        ask(f"127.0.0.1:{port}", caller, deadline_s=1.0)
    probed = where["health"].replace("0.0.0.0", "127.0.0.1")
    with grpc.insecure_channel(probed) as channel:
        asked = health_pb2.HealthCheckRequest(service="dnd.v1.CaptionerService")
        answer = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_certificates_are_replaced_while_the_server_runs(
    start: Start, tmp_path: Path, authority: trustme.CA
) -> None:
    files = issue(authority, tmp_path / "server", "localhost")
    start(files)
    port = endpoints(tmp_path)["address"].rpartition(":")[2]
    pool = EndpointPool("captioner", f"localhost:{port}", files)
    client = CaptionerClient(pool, deadline_s=10)
    assert client.caption_images(["one"], CaptionSettings()) == ["one"]
    time.sleep(0.01)  # another time of change
    issue(trustme.CA(), tmp_path / "server", "localhost")
    pool._resolved_at = -1e9
    assert client.caption_images(["two"], CaptionSettings()) == ["two"]
    assert len(pool._channels) == 1
    with pytest.raises((DeadlineExceeded, Unavailable)):  # of the authority from before
        ask(f"localhost:{port}", issue(authority, tmp_path / "late", "late"), deadline_s=1.0)
    pool.close()


async def test_web_pages_are_for_holders_of_a_certificate_too(
    tmp_path: Path, authority: trustme.CA
) -> None:
    app = FastAPI()
    app.get("/")(lambda: "found")
    caller = issue(authority, tmp_path / "caller", "caller")
    server = WebServer(app, "127.0.0.1", 0, issue(authority, tmp_path / "server", "127.0.0.1"))
    await server.start()

    def read(context: ssl.SSLContext) -> str:
        with urllib.request.urlopen(server.url, context=context, timeout=10) as page:
            return str(page.read().decode())

    context = ssl.create_default_context(cafile=caller.ca)
    try:
        with pytest.raises(OSError, match=r"(?i)certificate required|reset|eof|closed"):
            await asyncio.to_thread(read, context)
        context.load_cert_chain(caller.cert, caller.key)
        assert await asyncio.to_thread(read, context) == '"found"'
    finally:
        await server.close()


def test_files_are_named_when_they_do_not_fit(tmp_path: Path, authority: trustme.CA) -> None:
    good = issue(authority, tmp_path / "good", "a")
    other = issue(authority, tmp_path / "other", "b")
    assert tls_of_environment({}) is None
    assert (
        tls_of_environment(
            {"DND_TLS_CERT": good.cert, "DND_TLS_KEY": good.key, "DND_TLS_CA": good.ca}
        )
        == good
    )
    with pytest.raises(BadSetting, match="DND_TLS_KEY and DND_TLS_CA not set"):
        tls_files(good.cert, "", "")
    with pytest.raises(BadSetting, match="DND_TLS_CA = '/no': there is no such file"):
        tls_files(good.cert, good.key, "/no")
    with pytest.raises(BadSetting, match="are no certificate and its key"):
        tls_files(good.cert, other.key, good.ca)
    with pytest.raises(BadSetting, match=r"DND_TLS_CA = .*: it is no certificate"):
        tls_files(good.cert, good.key, good.key)
