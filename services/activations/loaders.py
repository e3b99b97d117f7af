"""Loaders of target networks: one function for each scheme of models.yaml, in one table.

Weights are safetensors or loaded with `weights_only`; code comes from installed packages only,
never from a model's repository.
"""

from __future__ import annotations

import importlib
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch

from dnd.errors import DndError, InvalidInput, ModelMissing, UnknownName, UnsafeModelFile
from dnd_services.activations.registry import Spec
from dnd_services.activations.saes import load_sae
from dnd_services.activations.targets import Preprocessing, Target

_TENSORS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # a variable of torch's own


def load_target(spec: Spec) -> Target:
    """Loads what `spec` names, with its sparse autoencoder if it has one.

    Raises:
        UnknownName: There is no such module, factory or model.
        ModelMissing: The weights, or a package that is needed, are not there.
        UnsafeModelFile: The weights are there as a pickle only.
        InvalidInput: What came back is no network with its preprocessing.
    """
    sae = None if spec.sae is None else load_sae(spec.sae)  # first: cheap to find wrong
    target = LOADERS[spec.scheme](spec.location)
    return target if sae is None else replace(target, sae=sae)


def load_hf(location: str) -> Target:
    """`owner/name@revision` or a folder: an image model of transformers."""
    # Importing transformers takes seconds, which only its own models are worth.
    from dnd_services.activations.hf_models import load_hf as load

    return load(location)


def load_python(location: str) -> Target:
    """`package.module:factory`: a function without arguments that returns a `Target`.

    A pair (module, preprocessing) or a triple with the names of the outputs is taken too.
    """
    module_name, _, factory_name = location.partition(":")
    if not factory_name:
        raise InvalidInput(f"'python:{location}': expected 'python:package.module:factory'.")
    with explaining(f"python:{location}"):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and (module_name + ".").startswith(error.name + "."):
                raise UnknownName(
                    f"'python:{location}': there is no module {error.name!r}."
                ) from None
            raise ModelMissing(
                f"'python:{location}' needs the package {error.name!r}, which is not installed."
            ) from None
        factory = getattr(module, factory_name, None)
        if not callable(factory):
            raise UnknownName(
                f"'python:{location}': module {module_name!r} has no function {factory_name!r}."
            )
        made = factory()
    if isinstance(made, tuple) and len(made) in (2, 3):
        names = tuple(map(str, made[2])) if len(made) == 3 else ()
        made = Target(made[0], made[1], names)
    if (
        not isinstance(made, Target)
        or not isinstance(made.module, torch.nn.Module)
        or not isinstance(made.preprocessing, Preprocessing)
    ):
        raise InvalidInput(
            f"'python:{location}' returned {type(made).__name__}: expected a Target, that is a "
            "torch module and its Preprocessing (dnd_services.activations.targets)."
        )
    return made


def load_torchvision(location: str) -> Target:
    """`resnet50@IMAGENET1K_V2`: a model of torchvision with one of its sets of weights."""
    name, _, weights_name = location.partition("@")
    models = _extra("torchvision.models", "torchvision")
    if not weights_name:
        raise InvalidInput(
            f"'torchvision:{location}': expected a name and weights, 'name@WEIGHTS'."
        )
    with explaining(f"torchvision:{location}"):
        try:
            weights = models.get_model_weights(name)[weights_name]
        except (KeyError, ValueError) as error:
            raise UnknownName(f"torchvision has no {location!r}: {error}.") from None
        with _without_pickles():
            module = models.get_model(name, weights=weights)
        chain = weights.transforms()
        side = _side(chain.crop_size)
        preprocessing = Preprocessing(
            size=(side, side),
            shortest_edge=_side(chain.resize_size),
            mean=_three(chain.mean),
            std=_three(chain.std),
            resample=str(getattr(chain.interpolation, "value", chain.interpolation)),
        )
        return Target(module, preprocessing, tuple(weights.meta.get("categories", ())))


def load_timm(location: str) -> Target:
    """`vit_base_patch16_224`: a model of timm with its default pretrained weights."""
    timm = _extra("timm", "timm")
    with explaining(f"timm:{location}"):
        if not timm.is_model(location):
            raise UnknownName(f"timm has no model {location!r}.")
        with _without_pickles():
            module = timm.create_model(location, pretrained=True)
        config = timm.data.resolve_model_data_config(module)
        _, height, width = config["input_size"]
        share = float(config.get("crop_pct") or 1.0)
        squashed = config.get("crop_mode") == "squash"
        preprocessing = Preprocessing(
            size=(height, width),
            shortest_edge=None if squashed else int(max(height, width) / share),
            mean=_three(config["mean"]),
            std=_three(config["std"]),
            resample=str(config["interpolation"]),
        )
        return Target(module, preprocessing)


def load_export(location: str) -> Target:
    """`/models/net.pt2`: an archive of `torch.export.save`."""
    # Importing torch.export takes a second, which only its own archives are worth.
    from dnd_services.activations.exports import load_export as load

    with explaining(f"export:{location}"), _without_pickles():
        return load(location)


@contextmanager
def explaining(name: str) -> Iterator[None]:
    """Says in a sentence why `name` does not load.

    Raises:
        UnsafeModelFile: torch has refused a pickle that is more than tensors.
        ModelMissing: Anything else but an error of ours was raised.
    """
    try:
        yield
    except DndError:
        raise
    except pickle.UnpicklingError as error:
        raise UnsafeModelFile(
            f"{name} has its weights in a pickle that holds more than tensors, and reading that "
            "would run code from it: save the state_dict alone, or use safetensors."
        ) from error
    except Exception as error:
        detail = " ".join(str(error).split())[:300]
        raise ModelMissing(f"{name} does not load: {type(error).__name__}: {detail}") from error


@contextmanager
def _without_pickles() -> Iterator[None]:
    """Libraries that unpickle whatever they have downloaded read tensors only, in this block."""
    before = os.environ.get(_TENSORS_ONLY)
    os.environ[_TENSORS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_TENSORS_ONLY]
        else:
            os.environ[_TENSORS_ONLY] = before


def _extra(module_name: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except (ImportError, RuntimeError, OSError) as error:  # its operators are for another torch
        raise ModelMissing(
            f"Models of {extra} need the package {extra}, which cannot be imported ({error}): "
            f"install the extra, pip install 'describe-and-dissect[{extra}]', with builds of torch "
            "and torchvision that belong together."
        ) from None


def _side(value: Any) -> int:
    """torchvision gives a side as a list of one number."""
    return int(value[0] if isinstance(value, (list, tuple)) else value)


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


LOADERS: dict[str, Callable[[str], Target]] = {
    "hf": load_hf,
    "python": load_python,
    "torchvision": load_torchvision,
    "timm": load_timm,
    "export": load_export,
}
