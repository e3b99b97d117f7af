"""From options and a job file to a job's specification; everything unknown is refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from dnd.errors import BadSetting, InvalidInput, suggest
from dnd.jobs import JobSpec, LayerUnits, read_method
from dnd.profiles import get_profile
from dnd.types import Priority

FILE_KEYS = (
    *("model", "layers", "units", "probe", "profile", "method", "concepts"),
    *("settings", "seed", "priority"),
)
LAYER_KEYS = ("layer", "units")
MAX_UNITS = 10_000_000


def make_spec(
    model: str,
    layers: Sequence[str],
    units: str,
    probe: str,
    profile: str,
    settings: Sequence[str],
    seed: int | None,
    spec_file: Path | None,
    *,
    method: str | None = None,
    concepts: str = "",
    similarity: str | None = None,
) -> JobSpec:
    """The specification that options ask for; what they leave open comes from `spec_file`.

    Raises:
        BadSetting: A key of the file or a setting is unknown, or a value does not fit.
        InvalidInput: Something that a job needs is missing.
    """
    given = read_spec_file(spec_file) if spec_file else {}
    overrides = {**_read_overrides(given, spec_file), **dict(map(_parse_setting, settings))}
    if similarity:
        overrides["dissect.similarity"] = json.dumps(similarity)
    default_units = parse_units(units or given.get("units", ""))
    chosen = [LayerUnits(path, default_units) for path in layers] or _read_layers(
        given, default_units, bool(units), spec_file
    )
    spec = JobSpec(
        model=model or str(given.get("model", "")),
        layers=tuple(chosen),
        probe=probe or str(given.get("probe", "")),
        profile=profile or str(given.get("profile", "")),
        overrides=overrides,
        seed=_check_seed(given.get("seed", 0), f"{spec_file}: seed")
        if seed is None
        else _check_seed(seed, "--seed"),
        priority=_read_priority(given, spec_file),
        method=read_method(method or str(given.get("method", ""))),
        concept_set=concepts or str(given.get("concepts", "")),
    )
    for name, value, option in (
        ("model", spec.model, "MODEL"),
        ("layer", spec.layers, "--layer PATH (`dnd layers MODEL` lists them)"),
        ("probe set", spec.probe, "--probe NAME"),
    ):
        if not value:
            raise InvalidInput(f"No {name} is given: add {option}, or name it in --spec FILE.")
    get_profile(spec.profile, spec.overrides)  # what is wrong with it is said before anything runs
    return spec


def parse_units(text: Any) -> tuple[int, ...]:
    """ "0-15,40" as numbers, ascending, each once; nothing for all units.

    Raises:
        InvalidInput: Something in it is no number and no range.
    """
    if isinstance(text, Sequence) and not isinstance(text, str):
        text = ",".join(map(str, text))
    units: set[int] = set()
    for part in str(text).split(","):
        part = part.strip()
        if not part:
            continue
        first, dash, last = part.partition("-")
        low, high = first.strip(), (last if dash else first).strip()
        if not (_is_number(low) and _is_number(high)) or int(low) > int(high):
            raise InvalidInput(f"Units {part!r}: expected numbers and ranges, for example 0-15,40.")
        if int(high) - int(low) > MAX_UNITS:
            raise InvalidInput(f"Units {part!r}: expected at most {MAX_UNITS} units.")
        units.update(range(int(low), int(high) + 1))
    return tuple(sorted(units))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def read_spec_file(path: Path) -> dict[str, Any]:
    """A job file as a mapping with known keys only.

    Raises:
        BadSetting: It cannot be read, or has an unknown key.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSetting(f"{path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadSetting(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, Mapping):
        raise BadSetting(f"{path}: expected keys with values: {', '.join(FILE_KEYS)}.")
    _check_keys(data, FILE_KEYS, str(path))
    return dict(data)


def make_absolute(spec: JobSpec) -> JobSpec:
    """The specification with folders written out in full, for a stack that works elsewhere."""
    return replace(spec, model=_absolute_model(spec.model), probe=_absolute_probe(spec.probe))


def read_concepts(path: Path) -> str:
    """The text of a file with concepts.

    Raises:
        InvalidInput: It cannot be read as text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is no UTF-8 text: expected one concept in each line.") from None


def _absolute_model(model: str) -> str:
    scheme, _, location = model.partition(":")
    path = Path(location).expanduser()
    if location and path.exists():
        return f"{scheme}:{path.absolute()}"
    return model


def _absolute_probe(probe: str) -> str:
    """Folders and shards, alone or in a union, with or without a scheme; other names as they are.

    A folder may have "+" in its name, shards may not.
    """
    if _is_folder(probe):
        return _folder(probe)
    return "+".join(_absolute_part(part) for part in probe.split("+"))


def _absolute_part(part: str) -> str:
    if _is_folder(part):
        return _folder(part)
    scheme, _, location = part.partition(":")
    if scheme in ("webdataset", "parquet") and location and "://" not in location:
        return f"{scheme}:{Path(location).expanduser().absolute()}"
    return part


def _is_folder(text: str) -> bool:
    return bool(text) and Path(text.removeprefix("imagefolder:")).expanduser().is_dir()


def _folder(text: str) -> str:
    return f"imagefolder:{Path(text.removeprefix('imagefolder:')).expanduser().absolute()}"


def _parse_setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise BadSetting(f"--set {text!r}: expected KEY=VALUE, for example synthesis.num_steps=8.")
    return key.strip(), value.strip()


def _read_overrides(given: Mapping[str, Any], where: Path | None) -> dict[str, str]:
    found = given.get("settings") or {}
    if not isinstance(found, Mapping):
        raise BadSetting(f"{where}: settings: expected names like synthesis.num_steps and values.")
    flat: dict[str, str] = {}
    for key, value in found.items():
        inner = value.items() if isinstance(value, Mapping) else [("", value)]
        for name, one in inner:
            flat[f"{key}.{name}" if name else str(key)] = json.dumps(one)
    return flat


def _read_layers(
    given: Mapping[str, Any], default: tuple[int, ...], override: bool, where: Path | None
) -> list[LayerUnits]:
    found = given.get("layers") or []
    if isinstance(found, str) or not isinstance(found, Sequence):
        raise BadSetting(f"{where}: layers: expected a list of module paths.")
    layers = []
    for one in found:
        if isinstance(one, Mapping):
            _check_keys(one, LAYER_KEYS, f"{where}: layers")
            own = default if override or "units" not in one else parse_units(one["units"])
            layers.append(LayerUnits(str(one.get("layer", "")), own))
        else:
            layers.append(LayerUnits(str(one), default))
    return layers


def _check_seed(seed: Any, where: str) -> int:
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**64:
        raise BadSetting(f"{where} = {seed!r}: expected a number from 0 to 2^64 - 1.")
    return seed


def _read_priority(given: Mapping[str, Any], where: Path | None) -> Priority:
    text = str(given.get("priority", Priority.BATCH.value))
    try:
        return Priority(text)
    except ValueError:
        choices = " or ".join(one.value for one in Priority)
        raise BadSetting(f"{where}: priority = {text!r}: expected {choices}.") from None


def _check_keys(found: Mapping[Any, Any], known: Sequence[str], where: str) -> None:
    for key in found:
        if key not in known:
            raise BadSetting(f"{where}: {suggest(str(key), list(known), what='key')}")
