"""What may be run: the operator's models.yaml and probes.yaml. A caller picks a name.

    models:
      resnet50: {spec: "hf:microsoft/resnet-50@<revision>"}
      my-net: {spec: "python:mypackage.nets:load"}
      latents:
        spec: "hf:/data/vit"
        sae: {layer: vit.layers.8, weights: sae.safetensors, activation: "topk:32"}

    probes:
      imagenet-val: "imagefolder:/data/imagenet/val"
      both: "imagefolder:/data/imagenet/val+imagefolder:/data/broden"
      shards: "webdataset:s3://bucket/val/{000..049}.tar"

On a private stack (DND_ALLOW_SPECS) a request may also give such a specification, or a folder of
images, in place of a name. Elsewhere that would let a caller run code of his choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from dnd.buckets import is_url
from dnd.errors import BadSetting, InvalidInput, UnknownName, suggest
from dnd_services.activations import sae_specs
from dnd_services.activations.sae_specs import SaeSpec

_PATHS = ("imagefolder", "webdataset", "parquet")
"""Schemes of probe sets whose locations are paths, or URLs."""


@dataclass(frozen=True)
class Spec:
    """Where something comes from: "hf:microsoft/resnet-50" is scheme "hf" and a location.

    Attributes:
        scheme: Which loader or source reads it.
        location: What stands behind the colon.
        sae: A sparse autoencoder on top of a layer of it.
    """

    scheme: str
    location: str
    sae: SaeSpec | None = None

    def __str__(self) -> str:
        own = f"{self.scheme}:{self.location}"
        return own if self.sae is None else f"{self.sae}@{own}"


@dataclass(frozen=True)
class Registry:
    """Models and probe sets by name.

    Attributes:
        models: Name to specification.
        probes: Name to the specifications whose images it unites.
        model_schemes: Loaders there are.
        probe_schemes: Kinds of probe sources there are.
        allow_specs: Whether a request may give a specification in place of a name.
    """

    models: Mapping[str, Spec]
    probes: Mapping[str, tuple[Spec, ...]]
    model_schemes: tuple[str, ...]
    probe_schemes: tuple[str, ...]
    allow_specs: bool = False

    def find_model(self, name: str) -> Spec:
        """The specification of a model.

        Raises:
            UnknownName: Nothing has this name.
            InvalidInput: It is a specification, and this server takes names only.
        """
        if name in self.models:
            return self.models[name]
        if _scheme_of(name) in (*self.model_schemes, sae_specs.SCHEME):
            self._check_allowed(name, "model")
            return _parse_model(name, self.model_schemes)
        known = sorted(self.models)
        raise UnknownName(
            f"{suggest(name, known, what='model')} models.yaml names them.{self._hint('model')}"
        )

    def find_probe(self, name: str) -> tuple[Spec, ...]:
        """The sources of a probe set: a name, a union "a+b", or specifications where allowed.

        Raises:
            UnknownName: A part of it is not known.
            InvalidInput: It is a specification, and this server takes names only.
        """
        if not name:
            raise InvalidInput("No probe set is named: expected a name of probes.yaml.")
        found: list[Spec] = []
        for part in self._split_union(name):
            if part in self.probes:
                found += self.probes[part]
            elif _scheme_of(part) in self.probe_schemes:
                self._check_allowed(part, "probe set")
                found.append(_absolute(_parse(part), Path.cwd()))
            elif self.allow_specs and Path(part).expanduser().is_dir():
                found.append(_absolute(Spec("imagefolder", part), Path.cwd()))
            else:
                known = sorted(self.probes)
                raise UnknownName(
                    f"{suggest(part, known, what='probe set')} probes.yaml names them."
                    + self._hint("probe set")
                )
        return tuple(dict.fromkeys(found))

    def _split_union(self, text: str) -> list[str]:
        """Parts between "+" signs; a "+" inside of a path stays where it is."""
        if text in self.probes or (self.allow_specs and Path(text).expanduser().is_dir()):
            return [text]
        parts: list[str] = []
        for piece in text.split("+"):
            stands_alone = (
                piece in self.probes
                or _scheme_of(piece) in self.probe_schemes
                or piece.startswith(("/", "~", "."))
            )
            if parts and not stands_alone and _scheme_of(parts[-1]) in self.probe_schemes:
                parts[-1] += "+" + piece
            else:
                parts.append(piece)
        return parts

    def _check_allowed(self, text: str, what: str) -> None:
        if not self.allow_specs:
            raise InvalidInput(
                f"{text!r} is a specification: this server takes names of {what}s only, as "
                "ListModels gives them (DND_ALLOW_SPECS allows specifications on a private stack)."
            )

    def _hint(self, what: str) -> str:
        if not self.allow_specs:
            return ""
        if what == "model":
            return f" Or a specification: {_forms(self.model_schemes)}, {sae_specs.SCHEME}:…."
        return f" Or a folder, or {_forms(self.probe_schemes)}."


def load_registry(
    models_file: str,
    probes_file: str,
    *,
    model_schemes: tuple[str, ...],
    probe_schemes: tuple[str, ...],
    allow_specs: bool = False,
) -> Registry:
    """Reads models.yaml and probes.yaml; an empty name stands for a file with nothing in it.

    Raises:
        BadSetting: A file cannot be read, or says something that is not understood.
    """
    models: dict[str, Spec] = {}
    for name, entry in _read(models_file, "DND_MODELS", "models").items():
        where = f"{models_file}: model {name!r}"
        sae = None
        if isinstance(entry, Mapping):
            _check_keys(entry, ("spec", "sae"), where)
            if "sae" in entry:
                base = Path(models_file).expanduser().absolute().parent
                sae = sae_specs.read_entry(entry["sae"], where, base)
            entry = entry.get("spec")
        models[name] = replace(_parse_entry(entry, model_schemes, where), sae=sae)
    probes: dict[str, tuple[Spec, ...]] = {}
    base = Path(probes_file).absolute().parent
    for name, entry in _read(probes_file, "DND_PROBES", "probes").items():
        where = f"{probes_file}: probe set {name!r}"
        if "+" in name:
            raise BadSetting(f"{where}: a name with '+' in it would read as a union.")
        parts = Registry({}, {}, (), probe_schemes)._split_union(str(entry or ""))
        probes[name] = tuple(
            _absolute(_parse_entry(part, probe_schemes, where), base) for part in parts
        )
    return Registry(models, probes, model_schemes, probe_schemes, allow_specs)


def _read(file: str, variable: str, section: str) -> Mapping[str, Any]:
    if not file:
        return {}
    try:
        data = yaml.safe_load(Path(file).expanduser().read_text())
    except OSError as error:
        raise BadSetting(f"{variable} = {file!r}: {error.strerror}.") from None
    except yaml.YAMLError as error:
        detail = " ".join(str(error).split())
        raise BadSetting(f"{variable} = {file!r} is no YAML: {detail}") from None
    data = {} if data is None else data
    if not isinstance(data, Mapping):
        raise BadSetting(f"{variable} = {file!r}: expected '{section}:' and names below it.")
    _check_keys(data, (section,), file)
    names = data.get(section) or {}
    if not isinstance(names, Mapping):
        raise BadSetting(f"{variable} = {file!r}: expected names below '{section}:'.")
    return {str(name): entry for name, entry in names.items()}


def _check_keys(found: Mapping[Any, Any], known: tuple[str, ...], where: str) -> None:
    for key in found:
        if key not in known:
            raise BadSetting(f"{where}: {suggest(str(key), list(known), what='key')}")


def _parse_entry(entry: Any, schemes: tuple[str, ...], where: str) -> Spec:
    if not isinstance(entry, str) or _scheme_of(entry) not in schemes:
        raise BadSetting(
            f"{where}: {entry!r} is no specification: expected one of {_forms(schemes)}."
        )
    return _parse(entry)


def _parse_model(text: str, schemes: tuple[str, ...]) -> Spec:
    spec = _parse(text)
    if spec.scheme != sae_specs.SCHEME:
        return spec
    sae, network = sae_specs.parse_location(spec.location)
    if _scheme_of(network) not in schemes:
        raise InvalidInput(
            f"{text!r}: the network {network!r} is no specification: expected one of "
            f"{_forms(schemes)}."
        )
    return replace(_parse(network), sae=sae)


def _forms(schemes: tuple[str, ...]) -> str:
    return ", ".join(f"{scheme}:…" for scheme in schemes)


def _parse(text: str) -> Spec:
    scheme, _, location = text.partition(":")
    return Spec(scheme, location)


def _scheme_of(text: str) -> str:
    scheme, colon, location = text.partition(":")
    return scheme if colon and location else ""


def _absolute(spec: Spec, base: Path) -> Spec:
    """Paths are relative to the file that names them."""
    if spec.scheme not in _PATHS or is_url(spec.location):
        return spec
    return Spec(spec.scheme, str(base / Path(spec.location).expanduser()))
