"""A server process with a servicer that needs no model."""

from __future__ import annotations

import json
import time
from pathlib import Path

PROGRAM = """
import sys
from dnd.errors import BadImage, Overloaded
from dnd.serving import StageService, run
from dnd.settings import ServerSettings
from dnd.v1 import captioner_pb2, captioner_pb2_grpc
import asyncio

class Servicer(captioner_pb2_grpc.CaptionerServiceServicer):
    async def CaptionImages(self, request, context):
        word = request.images[0].ref
        if word == "bad":
            raise BadImage("a bad image")
        if word == "busy":
            raise Overloaded("come back", retry_after_s=1.5)
        if word == "defect":
            raise KeyError("/secret")
        if word == "slow":
            await asyncio.sleep(0.7)
        return captioner_pb2.CaptionImagesResponse(
            captions=[captioner_pb2.Caption(text=word) for _ in request.images]
        )

def build(settings, metrics):
    async def close():
        print("closed", flush=True)
    add = lambda server: captioner_pb2_grpc.add_CaptionerServiceServicer_to_server(
        Servicer(), server
    )
    return StageService("dnd.v1.CaptionerService", add, close)

sys.exit(run("echo", ServerSettings, build))
"""


def endpoints(tmp_path: Path) -> dict[str, str]:
    """Where the server in `tmp_path` listens, once it does."""
    path = tmp_path / "endpoints.json"
    for _ in range(300):
        if path.exists():
            found: dict[str, str] = json.loads(path.read_text())
            return found
        time.sleep(0.05)
    raise AssertionError("the server did not start")
