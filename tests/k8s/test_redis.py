"""The broker's command, as the manifest has it, run with the Valkey that the tests use."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
import redis
import yaml
from k8s.manifests import DEPLOY

from dnd.stack.valkey import _find_server, free_port


def test_broker_wants_its_password_and_ends_on_sigterm(tmp_path: Path) -> None:
    objects = yaml.safe_load_all((DEPLOY / "components" / "redis" / "redis.yaml").read_text())
    (pod,) = (o["spec"]["template"]["spec"] for o in objects if o["kind"] == "StatefulSet")
    port, password = free_port(), "p4ss-word_1"
    command = [
        word.replace("redis-server", _find_server())
        .replace("6379", f"{port} --bind 127.0.0.1")
        .replace("/data", str(tmp_path))
        for word in pod["containers"][0]["command"]
    ]
    process = subprocess.Popen(
        command, env=os.environ | {"PASSWORD": password}, stdout=subprocess.DEVNULL
    )
    try:
        client = redis.Redis(port=port, password=password)
        for _ in range(100):
            try:
                client.ping()
                break
            except redis.exceptions.ConnectionError:
                time.sleep(0.05)
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        with pytest.raises(redis.exceptions.AuthenticationError):
            redis.Redis(port=port).ping()
        arguments = Path(f"/proc/{process.pid}/cmdline").read_text()
        assert password not in arguments
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
