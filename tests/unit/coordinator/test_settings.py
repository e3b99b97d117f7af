from __future__ import annotations

import pytest

from dnd.errors import BadSetting, UnknownName
from dnd.settings import load
from dnd_services.coordinator.settings import CoordinatorSettings, WorkerSettings

GOOD = {
    "DND_ARTIFACTS": "/tmp/artifacts",
    "DND_DATABASE": "sqlite:////tmp/record.db",
    "DND_REDIS": "redis://127.0.0.1:6379/0",
    "DND_ACTIVATIONS": "127.0.0.1:1",
    "DND_CAPTIONER": "127.0.0.1:2",
    "DND_SUMMARIZER": "127.0.0.1:3",
    "DND_SYNTHESIZER": "127.0.0.1:4",
    "DND_SCORER": "file:/tmp/scorer.json",
}


def test_settings_come_from_variables_and_flags() -> None:
    settings = load(WorkerSettings, ["--stage", "caption", "--threads", "4"], GOOD)
    assert settings.stages == ("caption",)
    assert settings.threads == 4
    assert settings.stage_targets["scorer"] == "file:/tmp/scorer.json"
    assert load(WorkerSettings, ["--stage", "caption,score"], GOOD).stages == ("caption", "score")
    assert len(load(WorkerSettings, ["--stage", "all"], GOOD).stages) == 8
    assert load(CoordinatorSettings, [], GOOD).lease_s == 60


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DATABASE", "", "DND_DATABASE = ''"),
        ("DATABASE", "record.db", "DND_DATABASE = 'record.db'"),
        ("REDIS", "http://x", "DND_REDIS = 'http://x'"),
        ("SCORER", "", "DND_SCORER is not set"),
        ("LEASE_S", "0", "DND_LEASE_S = 0"),
        ("LEASE_S", "soon", "DND_LEASE_S = 'soon'"),
        ("RENEW_S", "40", "DND_RENEW_S = 40.0"),
        ("RPC_DEADLINE_S", "100", "DND_RPC_DEADLINE_S = 100.0"),
        ("CAP_TASK_S", "5", "DND_CAP_TASK_S = 5.0"),
        ("MIN_TASK_ITEMS", "1000", "DND_MIN_TASK_ITEMS = 1000"),
        ("MAX_ATTEMPTS", "0", "DND_MAX_ATTEMPTS = 0"),
        ("KEEP_DRAWINGS", "none", "DND_KEEP_DRAWINGS = 'none': expected all or labels"),
        ("HOST", "0.0.0.0", "loopback only"),
    ],
)
def test_settings_name_the_variable_when_it_is_bad(name: str, value: str, message: str) -> None:
    with pytest.raises(BadSetting) as caught:
        load(CoordinatorSettings, [], GOOD | {f"DND_{name}": value})
    assert message in caught.value.message


def test_worker_suggests_a_stage_when_it_is_misspelt() -> None:
    with pytest.raises(UnknownName, match="'caption'"):
        load(WorkerSettings, ["--stage", "captoin"], GOOD)
    with pytest.raises(BadSetting, match="DND_STAGE is not set"):
        load(WorkerSettings, [], GOOD)
