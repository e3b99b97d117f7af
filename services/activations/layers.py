"""Reading any layer of any network: forward hooks on dotted module paths, all in one pass.

Every output is brought into one of three forms: maps (images, units, height, width), vectors
(images, units), or tokens (images, tokens, units).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dnd.errors import InvalidInput, UnknownName, suggest
from dnd.profiles import Pooling
from dnd.types import LayerKind

R = TypeVar("R")

MAX_PREFIX_TOKENS = 5
"""A class token, a distillation token or four registers before the tokens of the picture."""

_CHANNELS_FIRST = ("Conv2d", "BatchNorm2d")
_KINDS = {4: LayerKind.CONV, 3: LayerKind.TOKENS, 2: LayerKind.LINEAR}


@dataclass(frozen=True)
class LayerOutput:
    """What a layer answers for a batch.

    Attributes:
        kind: Which of the three forms.
        values: (images, units, height, width), (images, tokens, units) or (images, units).
        shape: Of one image's output as the module gives it, without the batch axis.
    """

    kind: LayerKind
    values: Tensor
    shape: tuple[int, ...]

    @property
    def num_units(self) -> int:
        return int(self.values.shape[2 if self.kind is LayerKind.TOKENS else 1])


def find_modules(network: nn.Module, layers: Sequence[str]) -> dict[str, nn.Module]:
    """The modules at dotted paths.

    Raises:
        UnknownName: A path that the network does not have, with near ones.
    """
    modules = {path: module for path, module in network.named_modules() if path}
    for layer in layers:
        if layer not in modules:
            raise UnknownName(
                suggest(layer, list(modules), what="layer") + " `dnd layers MODEL` lists them all."
            )
    return {layer: modules[layer] for layer in layers}


def run_with_hooks(
    network: nn.Module,
    modules: Mapping[str, nn.Module],
    inputs: Tensor,
    reduce: Callable[[str, LayerOutput], R],
    num_runs: Mapping[str, int] | None = None,
) -> dict[str, R]:
    """One forward pass; what `reduce` makes of each module's output.

    `reduce` is called inside of the pass, since a later layer may overwrite the output in place.
    A module that runs several times in a pass counts with its last run.

    Args:
        num_runs: How often each module runs in a pass, where that is known: the pass then ends with
            the last of them, and the layers above cost nothing.
    """
    results: dict[str, R] = {}
    left = Counter({path: num_runs[path] for path in modules}) if num_runs else Counter[str]()

    def hook_for(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            read = read_output(module, output, len(inputs))
            if read is not None:
                results[path] = reduce(path, read)
            left[path] -= 1
            if num_runs and max(left.values()) <= 0:
                raise _AllRead

        return hook

    with ExitStack() as stack:
        for path, module in modules.items():
            stack.callback(module.register_forward_hook(hook_for(path)).remove)
        with suppress(_AllRead):
            network(inputs)
    return results


class _AllRead(BaseException):
    """Ends a pass: no network may take it for an error of its own."""


def read_output(module: nn.Module, output: Any, num_images: int) -> LayerOutput | None:
    """A module's output in one of the three forms; None if it has no unit for each image."""
    if isinstance(output, Mapping):
        output = next((v for v in output.values() if isinstance(v, Tensor)), None)
    elif isinstance(output, (tuple, list)):
        output = next((v for v in output if isinstance(v, Tensor)), None)
    if not isinstance(output, Tensor) or output.ndim not in _KINDS:
        return None
    if len(output) != num_images or not output.is_floating_point() or output.numel() == 0:
        return None
    values = output
    if output.ndim == 4 and _is_channels_last(module, output):
        values = output.permute(0, 3, 1, 2)
    return LayerOutput(_KINDS[output.ndim], values, tuple(output.shape[1:]))


def class_name(module: nn.Module) -> str:
    """Name of its class; of a module of an export archive, of the class that it had before."""
    if type(module).__module__ == "torch.export.unflatten":
        told = getattr(module, "type_name", lambda: None)()
        return str(told or "").rpartition(".")[2] or type(module).__name__
    return type(module).__name__


def _is_channels_last(module: nn.Module, output: Tensor) -> bool:
    """Linear layers and the stages of some hierarchical transformers answer (…, units)."""
    _, first, second, third = output.shape
    if isinstance(module, nn.LayerNorm):
        # Classes derived from it may turn their input and normalise (images, units, …).
        num_units = module.normalized_shape[-1]
        return third == num_units and (type(module) is nn.LayerNorm or first != num_units)
    if isinstance(module, nn.Linear) or class_name(module) in ("Linear", "LayerNorm"):
        return True
    if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)) or class_name(module) in _CHANNELS_FIRST:
        return False
    return first == second != third


def pool(output: LayerOutput, pooling: Pooling, input_size: tuple[int, int]) -> Tensor:
    """Activations (images, units), float32.

    Tokens in front of the picture's (a class token, registers) do not count to mean and maximum.

    Raises:
        InvalidInput: The class token is asked for where there is none.
    """
    values = output.values
    if pooling is Pooling.CLS:
        prefix = None if output.kind is not LayerKind.TOKENS else token_grid(output, input_size)
        if prefix is None or prefix[0] == 0:
            raise InvalidInput(
                f"Pooling 'cls' needs a layer with a class token; this one answers {output.shape} "
                f"for an image ({output.kind.value}): use 'mean' or 'max'."
            )
        return values[:, 0].to(torch.float32, copy=True)
    if output.kind is LayerKind.LINEAR:
        # A copy: the layer after this one may overwrite its input in place.
        return values.to(torch.float32, copy=True)
    if output.kind is LayerKind.TOKENS:
        grid = token_grid(output, input_size)
        positions = values[:, grid[0] if grid else 0 :]
        axes = [1]
    else:
        positions = values
        axes = [2, 3]
    if pooling is Pooling.MAX:
        return positions.amax(axes).float()
    return positions.mean(axes, dtype=torch.float32)


def maps_of(output: LayerOutput, input_size: tuple[int, int]) -> Tensor | None:
    """Activation maps (images, units, height, width); None where positions mean nothing."""
    if output.kind is LayerKind.CONV:
        return output.values
    if output.kind is LayerKind.LINEAR:
        return None
    grid = token_grid(output, input_size)
    if grid is None:
        return None
    prefix, height, width = grid
    tokens = output.values[:, prefix:]
    return tokens.reshape(len(tokens), height, width, -1).permute(0, 3, 1, 2)


def token_grid(output: LayerOutput, input_size: tuple[int, int]) -> tuple[int, int, int] | None:
    """Tokens in front of the picture's, and the rows and columns of the picture's tokens.

    The fewest tokens in front for which the rest is a grid of the input's aspect; None without one.
    """
    num_tokens = output.shape[0]
    for prefix in range(min(MAX_PREFIX_TOKENS, num_tokens - 1) + 1):
        rest = num_tokens - prefix
        height = math.isqrt(rest * input_size[0] // input_size[1])
        if height and rest % height == 0:
            width = rest // height
            if height * input_size[1] == width * input_size[0]:
                return prefix, height, width
    return None
