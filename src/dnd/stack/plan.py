"""From a configuration to programs: which processes there are, and what each is told."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace

from dnd.clients import JUDGE, SERVICE_NAMES
from dnd.stack.config import WORKERS, Settings, StackConfig
from dnd.stack.home import Home
from dnd.stack.probes import models_file, probes_file
from dnd.stack.processes import Program

COORDINATOR = "coordinator"


def plan_programs(config: StackConfig, home: Home, redis: str) -> list[Program]:
    """The services, the judge if there is one, the coordinator and its workers.

    Args:
        redis: The broker's URL.
    """
    queue = {
        **_variables(config.coordinator),
        "DND_DATABASE": config.database or home.database,
        "DND_REDIS": redis,
        **{f"DND_{name.upper()}": f"file:{home.endpoints(name)}" for name in SERVICE_NAMES},
    }
    judge = [_service(JUDGE, config, home, "scorer")] if has_judge(config) else []
    judge_target = {f"DND_{JUDGE.upper()}": f"file:{home.endpoints(JUDGE)}"} if judge else {}
    return [
        *(_service(name, config, home, name) for name in SERVICE_NAMES),
        *judge,
        _python(COORDINATOR, "coordinator", {**queue, **judge_target}, config, home),
        *(_worker(name, queue, config, home) for name in WORKERS),
    ]


def has_judge(config: StackConfig) -> bool:
    """Whether the stack has a model that judges labels."""
    return bool(config.services.get(JUDGE, {}).get("model"))


def _service(name: str, config: StackConfig, home: Home, module: str) -> Program:
    settings = config.services[name]
    variables = _variables(settings)
    if name == "activations":
        variables |= {
            "DND_MODELS": config.models or str(models_file(home)),
            "DND_PROBES": config.probes or str(probes_file(home)),
            "DND_ALLOW_SPECS": str(config.allow_specs).lower(),
        }
    program = _python(name, module, variables, config, home)
    environment = dict(program.environment)
    threads = str(settings.get("threads") or "")
    if threads:
        environment |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    if name == "activations":
        # A model that is given as python:module:factory may lie where the user is.
        environment["PYTHONPATH"] = os.pathsep.join(
            part for part in (environment.get("PYTHONPATH", ""), os.getcwd()) if part
        )
    return replace(program, environment=environment)


def _worker(name: str, queue: Mapping[str, str], config: StackConfig, home: Home) -> Program:
    variables = {
        **{
            key: value
            for key, value in queue.items()
            if key not in ("DND_PORT", "DND_METRICS_PORT", "DND_WEB_PORT")
        },
        **_variables(config.workers[name]),
        "DND_STAGE": ",".join(WORKERS[name]),
    }
    return _python(f"worker-{name}", "coordinator.worker", variables, config, home)


def _python(
    name: str,
    module: str,
    variables: Mapping[str, str],
    config: StackConfig,
    home: Home,
) -> Program:
    environment = {
        **base_environment(),
        **variables,
        "DND_ARTIFACTS": config.artifacts or str(home.artifacts),
        "DND_LOG_LEVEL": config.log_level,
        "DND_LOG_FORMAT": config.log_format,
        "DND_ENDPOINTS_FILE": str(home.endpoints(name)),
    }
    command = [sys.executable, "-P", "-m", f"dnd_services.{module}"]
    return Program(name, command, environment, home.endpoints(name))


def base_environment() -> dict[str, str]:
    """This command's environment without its DND_* variables, which mean something else there.

    Processes that share the cores must sleep while they wait, and loopback is no proxy's business.
    Memory that a forward pass has freed is kept for the next one (MALLOC_…): glibc otherwise gives
    each large tensor back to the kernel, and faults every page of it in again.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("DND_")}
    no_proxy = ",".join(filter(None, [inherited.get("no_proxy", ""), "127.0.0.1,localhost"]))
    if "PYTHONPATH" in inherited:  # the processes work in the home
        parts = inherited["PYTHONPATH"].split(os.pathsep)
        inherited["PYTHONPATH"] = os.pathsep.join(os.path.abspath(part) for part in parts if part)
    return {
        **inherited,
        "OMP_WAIT_POLICY": "PASSIVE",
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": str(2**31),
        "MALLOC_TRIM_THRESHOLD_": str(2**32),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "no_proxy": no_proxy,
        "no_grpc_proxy": no_proxy,
    }


def _variables(settings: Settings) -> dict[str, str]:
    return {
        f"DND_{key.upper()}": str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in settings.items()
    }
