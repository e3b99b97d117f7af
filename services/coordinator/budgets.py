"""What the operator's budgets file says: prices of language models, limits and quotas of tenants.

    prices:                                   # dollars for a million tokens
      "openai:gpt-4o-mini": {input: 0.15, output: 0.60}
    tenants:
      team-a: {max_dollars: 20, max_jobs: 10, max_tasks: 8}
      "*": {max_tokens: 1000000}              # every tenant that is not named

A tenant's limits are on all that its jobs have ever used; its quotas are on what it does at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from dnd.errors import BadSetting, suggest
from dnd.jobs import Limits

OTHERS = "*"

T = TypeVar("T")


@dataclass(frozen=True)
class Price:
    """Dollars for a million tokens of prompts and of answers."""

    input: float
    output: float

    def dollars(self, num_input_tokens: int, num_output_tokens: int) -> float:
        return (self.input * num_input_tokens + self.output * num_output_tokens) / 1e6


@dataclass(frozen=True)
class TenantRules(Limits):
    """Limits of a tenant, and its quotas; 0 for none.

    Attributes:
        max_jobs: Jobs that have not ended.
        max_tasks: Tasks that are queued or running.
    """

    max_jobs: int = 0
    max_tasks: int = 0


@dataclass(frozen=True)
class Budgets:
    """The file. Without one nothing has a price, and no tenant a limit."""

    prices: Mapping[str, Price] = field(default_factory=dict)
    tenants: Mapping[str, TenantRules] = field(default_factory=dict)

    def rules_of(self, tenant: str) -> TenantRules:
        return self.tenants.get(tenant) or self.tenants.get(OTHERS) or TenantRules()


def read_budgets(path: str) -> Budgets:
    """Reads the file; an empty path stands for none.

    Raises:
        BadSetting: It cannot be read, or something in it is unknown or no number >= 0.
    """
    if not path:
        return Budgets()
    try:
        data = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise _bad(path, f"it cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _bad(path, f"it is no YAML: {' '.join(str(error).split())}.") from None
    parts = _mapping(data, path, "the file")
    for key in parts:
        if key not in ("prices", "tenants"):
            raise _bad(path, suggest(str(key), ["prices", "tenants"], what="key"))
    prices, tenants = (_mapping(parts.get(key) or {}, path, key) for key in ("prices", "tenants"))
    for name in prices:
        if set(_mapping(prices[name], path, str(name))) != {"input", "output"}:
            raise _bad(path, f"prices: {name}: expected the keys input and output.")
    return Budgets(
        {str(name): _numbers(Price, one, path, str(name)) for name, one in prices.items()},
        {str(name): _numbers(TenantRules, one, path, str(name)) for name, one in tenants.items()},
    )


def _numbers(cls: type[T], given: Any, path: str, where: str) -> T:
    """A dataclass of numbers >= 0, whole ones where its defaults are."""
    kinds = {item.name: item.type for item in fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in _mapping(given, path, where).items():
        if key not in kinds:
            raise _bad(path, f"{where}: {suggest(str(key), list(kinds), what='key')}")
        whole = kinds[key] == "int"
        is_number = isinstance(value, int if whole else (int, float)) and value is not True
        if not is_number or not math.isfinite(value) or value < 0:
            kind = "whole number" if whole else "number"
            raise _bad(path, f"{where}: {key} = {value!r}: expected a {kind} of at least 0.")
        values[str(key)] = value
    return cls(**values)


def _mapping(given: Any, path: str, where: str) -> Mapping[Any, Any]:
    if not isinstance(given, Mapping):
        raise _bad(path, f"{where}: expected keys and values, not {given!r}.")
    return given


def _bad(path: str, problem: str) -> BadSetting:
    return BadSetting(f"DND_BUDGETS = {path!r}: {problem}")
