"""A real S3 server on loopback (`rclone serve s3`), asked as S3 and as Google; a web server.

rclone 1.75 answers a request for a part of an object with the right part and headers, but with
status 200 in place of 206, which no S3 client takes. `run_s3(mended=True)` puts a relay before it
that corrects this one number.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

KEY, SECRET = "AKIAOFTHETESTS", "secret-of-the-tests"


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes:
        folder: Each folder in it is a bucket; what is put into a bucket is a file there.
        variables: What a process needs in its environment to use it.
    """

    folder: Path
    variables: dict[str, str]


@contextmanager
def run_s3(folder: Path, *, mended: bool = False) -> Iterator[S3Server]:
    """`rclone serve s3` over `folder`, ended at the end; to be read only if it is `mended`."""
    with _rclone(folder, mended=mended, auth=f'"{KEY},{SECRET}"') as url:
        variables = {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT": url,
            "AWS_ALLOW_HTTP": "true",
        }
        yield S3Server(folder, variables)


@contextmanager
def _rclone(folder: Path, *, mended: bool, auth: str = "") -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(Path(sysconfig.get_path("scripts")) / "rclone"), "serve", "s3", str(folder)]
    process = subprocess.Popen(
        [*command, "--addr", f"127.0.0.1:{port}", "--config", os.devnull],
        env={"HOME": str(folder.parent)} | ({"RCLONE_AUTH_KEY": auth} if auth else {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 60
        while not _listens(port):
            assert process.poll() is None, "rclone serve s3 has ended"
            assert time.monotonic() < until, "rclone serve s3 does not listen after 60 s"
            time.sleep(0.05)
        with _mend(port) if mended else nullcontext(f"http://127.0.0.1:{port}") as url:
            yield url
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def _mend(port: int) -> Iterator[str]:
    """Relays GET and HEAD to `port`; parts of an object get their status."""

    class Relay(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server = http.client.HTTPConnection("127.0.0.1", port)
            server.request(self.command, self.path, headers=dict(self.headers))
            answer = server.getresponse()
            data = answer.read()
            self.send_response(206 if answer.getheader("Content-Range") else answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length"):
                    self.send_header(name, value)
            size = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", size or str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            server.close()

        do_HEAD = do_GET  # noqa: N815 (the name that http.server looks for)

        def log_message(self, *_: object) -> None:
            pass

    with _serve(Relay) as url:
        yield url


@contextmanager
def run_gcs(folder: Path, *, mended: bool = False) -> Iterator[dict[str, str]]:
    """The same server without keys, for the client of Google Cloud Storage.

    Google's XML API is that of S3, but for who may call. Google itself has never been asked.

    Yields:
        What a process needs in its environment to use it.
    """
    with _rclone(folder, mended=mended) as url:
        key = {"gcs_base_url": url, "disable_oauth": True}
        key |= dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
        yield {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(key), "GOOGLE_ALLOW_HTTP": "true"}


@contextmanager
def _serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class WebServer:
    """Files over HTTP.

    Attributes:
        url: Of its root.
        files: Path to contents.
        ranges: Whether it answers requests for a part of a file.
        requests: (path, range) of every GET so far.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    requests: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def run_web() -> Iterator[WebServer]:
    """A server on loopback for what is put into its `files`."""
    web = WebServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            web.requests.append((self.path, self.headers.get("Range", "")))
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            data = web.files.get(self.path.lstrip("/"))
            if data is None:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if asked and web.ranges:
                first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
                data = data[first : last + 1]
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Last-Modified", "Wed, 01 Jul 2026 00:00:00 GMT")
            self.end_headers()
            if with_body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with _serve(Handler) as web.url:
        yield web
