"""The configuration of a stack, and what its processes are told."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from dnd.clients import JUDGE, SERVICE_NAMES
from dnd.errors import BadSetting
from dnd.jobs import STAGES
from dnd.settings import ServerSettings
from dnd.stack import Home, config, default_yaml, load_config
from dnd.stack.config import COORDINATOR_KEYS, MORE_KEYS, WORKER_KEYS, WORKERS, parse_config
from dnd.stack.plan import plan_programs
from dnd.stack.probes import models_file, with_names_of
from dnd.stack.processes import Program

# Set by the stack itself, from where things lie in its home.
OWN = {
    *(
        "host",
        "artifacts",
        "endpoints_file",
        "log_level",
        "log_format",
        "models",
        "probes",
        "allow_specs",
    ),
    *("tls_cert", "tls_key", "tls_ca", "health_port"),
}


def settings_of(module: str, name: str) -> set[str]:
    cls = getattr(import_module(f"dnd_services.{module}"), name)
    return {item.name for item in dataclasses.fields(cls)}


@pytest.mark.parametrize("service", SERVICE_NAMES)
def test_takes_every_setting_that_a_service_has(service: str) -> None:
    fields = settings_of(f"{service}.__main__", f"{service.capitalize()}Settings")
    assert {*config._SERVICE_KEYS, *MORE_KEYS[service]} == fields - OWN


def test_takes_every_setting_that_coordinator_and_workers_have() -> None:
    queue = {"database", "redis", JUDGE, *SERVICE_NAMES}
    fields = settings_of("coordinator.settings", "CoordinatorSettings")
    assert set(COORDINATOR_KEYS) == fields - OWN - queue
    worker = settings_of("coordinator.settings", "WorkerSettings")
    shared = settings_of("coordinator.settings", "QueueSettings")
    assert {*WORKER_KEYS, "stage"} == worker - shared
    assert {item.name for item in dataclasses.fields(ServerSettings)} <= shared


def test_prints_a_configuration_that_it_reads_back() -> None:
    built_in = load_config()
    assert parse_config(yaml.safe_load(default_yaml()), "printed") == built_in
    assert parse_config(yaml.safe_load(built_in.to_yaml()), "state") == built_in
    assert set(built_in.services) == {*SERVICE_NAMES, JUDGE}
    assert set(built_in.workers) == set(WORKERS)
    assert sorted(stage for stages in WORKERS.values() for stage in stages) == sorted(STAGES)


def test_changes_only_what_a_file_says(tmp_path: Path) -> None:
    file = tmp_path / "stack.yaml"
    file.write_text("services: {scorer: {device: 'cuda:1'}}\nworkers: {score: {threads: 9}}\n")
    changed, built_in = load_config(file), load_config()
    assert changed.services["scorer"] == {**built_in.services["scorer"], "device": "cuda:1"}
    assert changed.services["captioner"] == built_in.services["captioner"]
    assert changed.workers["score"] == {"threads": 9}
    assert changed.workers["caption"] == built_in.workers["caption"]


def test_finds_files_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "key").write_text("secret")
    file = tmp_path / "stack.yaml"
    file.write_text(
        "models: models.yaml\n"
        "services:\n"
        "  captioner: {model: weights}\n"
        "  summarizer: {model: 'openai:x', api_key_file: key, base_url: 'http://h/v1'}\n"
    )
    found = load_config(file)
    assert found.models == str(tmp_path / "models.yaml")
    assert found.services["captioner"]["model"] == str(tmp_path / "weights")
    assert found.services["summarizer"]["api_key_file"] == str(tmp_path / "key")
    assert found.services["summarizer"]["model"] == "openai:x"
    assert found.services["scorer"]["model"] == "pack:starter/scorer"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("servces: {}", "no key 'servces'. Did you mean 'services'"),
        ("services: {scorr: {}}", "services: There is no key 'scorr'. Did you mean 'scorer'"),
        ("services: {scorer: {devise: cpu}}", "services.scorer: .*Did you mean 'device'"),
        ("services: {scorer: {host: 0.0.0.0}}", "no key 'host'"),
        ("services: {scorer: {device: [cpu]}}", r"services.scorer.device = \['cpu'\]"),
        ("services: [scorer]", "expected keys with values"),
        ("workers: {draw: {}}", "no key 'draw'"),
        ("coordinator: {lease: 3}", "Did you mean 'lease_s'"),
        ("redis: 7", "redis = 7"),
        ("artifacts: /data", "artifacts = '/data': expected s3://bucket/prefix"),
        ("allow_specs: 'yes'", "allow_specs = 'yes'"),
        ("start_timeout_s: true", "start_timeout_s = True"),
        ("a: [", "is no YAML"),
        ("text", "expected keys with values, not 'text'"),
    ],
)
def test_names_what_is_wrong_in_a_file(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "stack.yaml"
    file.write_text(text)
    with pytest.raises(BadSetting, match=message):
        load_config(file)


def test_names_the_file_when_it_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match=r"stack.yaml cannot be read: No such file"):
        load_config(tmp_path / "stack.yaml")


def test_tells_each_process_its_settings_and_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DND_HOME", "elsewhere")
    monkeypatch.setenv("DND_DEVICE", "cuda")
    home = Home(tmp_path)
    built_in = load_config()
    changed = dataclasses.replace(
        built_in,
        coordinator={"port": 7000, "lease_s": 9},
        allow_specs=True,
        services={**built_in.services, "scorer": {"fixed_batch": True, "threads": 3}},
    )
    programs = {one.name: one for one in plan_programs(changed, home, "redis://r/0")}
    assert [name for name in programs if name != JUDGE] == [
        *SERVICE_NAMES,
        "coordinator",
        *(f"worker-{name}" for name in WORKERS),
    ]
    scorer = programs["scorer"].environment
    assert (scorer["DND_FIXED_BATCH"], scorer["OMP_NUM_THREADS"]) == ("true", "3")
    assert not {"DND_HOME", "DND_DEVICE", "DND_REDIS"} & scorer.keys()
    assert programs["activations"].environment["DND_ALLOW_SPECS"] == "true"
    coordinator = programs["coordinator"].environment
    assert coordinator["DND_SCORER"] == f"file:{home.endpoints('scorer')}"
    worker = programs["worker-score"].environment
    assert (coordinator["DND_PORT"], coordinator["DND_LEASE_S"]) == ("7000", "9")
    assert (worker["DND_LEASE_S"], worker["DND_STAGE"]) == ("9", "score,calibrate")
    assert "DND_PORT" not in worker
    artifacts = {one.environment["DND_ARTIFACTS"] for one in programs.values()}
    assert artifacts == {str(home.artifacts)}


def test_starts_the_judge_when_it_has_a_model(tmp_path: Path) -> None:
    home, built_in = Home(tmp_path), load_config()

    def plan(model: str) -> dict[str, Program]:
        services = {**built_in.services, JUDGE: {"model": model, "cache_mb": 8}}
        config = dataclasses.replace(built_in, services=services)
        return {one.name: one for one in plan_programs(config, home, "redis://r/0")}

    without, with_judge = plan(""), plan("pack:starter/scorer")
    assert list(with_judge) == [*SERVICE_NAMES, JUDGE, *list(without)[len(SERVICE_NAMES) :]]
    judge = with_judge[JUDGE]
    assert judge.command == with_judge["scorer"].command
    assert judge.environment["DND_MODEL"] == "pack:starter/scorer"
    assert judge.endpoints == home.endpoints(JUDGE)
    targets = [one["coordinator"].environment.get("DND_JUDGE") for one in (without, with_judge)]
    assert targets == [None, f"file:{home.endpoints(JUDGE)}"]
    assert "DND_JUDGE" not in with_judge["worker-score"].environment


def test_every_process_is_told_of_the_bucket_for_artifacts(tmp_path: Path) -> None:
    config = parse_config({"artifacts": "s3://bucket/x"}, "test")
    programs = plan_programs(config, Home(tmp_path), "redis://r/0")
    assert {one.environment["DND_ARTIFACTS"] for one in programs} == {"s3://bucket/x"}


def test_a_private_stack_takes_the_names_of_its_home(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert with_names_of(home, load_config(None)) == load_config(None)
    models = models_file(home)
    named = with_names_of(home, load_config(None))
    assert (named.models, named.probes) == (str(models), "")
    theirs = dataclasses.replace(load_config(None), models="/elsewhere/models.yaml")
    assert with_names_of(home, theirs) == theirs
