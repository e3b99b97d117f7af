"""A target on its device: pictures in, activations or maps out. The one place that runs it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from dnd.errors import BadAnswer, DndError, InvalidInput
from dnd.profiles import Pooling
from dnd.serving.batching import pad_items
from dnd.serving.placement import Placement
from dnd.types import LayerInfo, LayerKind
from dnd_services.activations.layers import (
    LayerOutput,
    class_name,
    find_modules,
    maps_of,
    pool,
    run_with_hooks,
)
from dnd_services.activations.targets import Target

PASSED_ON = frozenset({"Identity", "Dropout", "Dropout2d", "ZeroPad2d", "DropPath", "Flatten"})
"""Classes of modules that add nothing to what their input says; they are not offered as layers."""


class Network:
    """A loaded target, ready to be asked. Calls come from the device thread, one at a time.

    Args:
        name: What it was loaded from, for messages.
        target: The network and its preprocessing.
        placement: Device and number type.
        fixed_batch: Pad every pass to this many images; 0 for batches as they come.
    """

    def __init__(
        self, name: str, target: Target, placement: Placement, fixed_batch: int = 0
    ) -> None:
        self.name = name
        self.preprocessing = target.preprocessing
        self.unit_names = target.unit_names
        self.fixed_batch = fixed_batch
        self._device = placement.device
        self._dtype = placement.dtype
        self._module = target.module.to(placement.device, placement.dtype).eval()
        self._module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._sae = target.sae
        if self._sae is not None:
            self._sae.to(placement.device, placement.dtype).eval()
        self._num_runs: Counter[str] = Counter()
        self._mean = torch.tensor(target.preprocessing.mean, device=placement.device)
        self._std = torch.tensor(target.preprocessing.std, device=placement.device)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over what computes: the weights in their number type, and the preprocessing."""
        described = self.preprocessing.describe()
        weights = dict(self._module.state_dict())
        if self._sae is not None:
            described["sae"] = self._sae.describe()
            weights |= {f"{self._sae.path} {k}": v for k, v in self._sae.state_dict().items()}
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
        for name, value in sorted(weights.items()):
            if isinstance(value, Tensor):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
                flat = value.detach().to("cpu").contiguous().reshape(-1)
                digest.update(flat.view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """The layers that can be labelled, in module order, without those that pass on their input.

        Raises:
            InvalidInput: The network does not take a batch of pictures alone.
        """
        return tuple(layer for layer in self._readable if layer.module not in PASSED_ON)

    @cached_property
    def _readable(self) -> tuple[LayerInfo, ...]:
        """Every module with units, from one pass over two grey pictures."""
        modules = self._listed_modules()
        below = () if self._sae is None else (self._sae.path,)
        read = self._find_modules([*modules, *below])
        pictures = [np.full((*self.preprocessing.size, 3), 127, np.uint8)] * 2

        def describe(path: str, output: LayerOutput) -> LayerInfo:
            """All that is kept of an output; of all layers together they would fill the memory."""
            self._num_runs[path] += 1
            output = next(iter(self._parts(path, output)))
            return LayerInfo(
                path=path,
                module=class_name(modules[path]),
                kind=output.kind,
                num_units=output.num_units,
                output_shape=output.shape,
            )

        try:
            with torch.inference_mode():
                found = run_with_hooks(self._module, read, self._inputs(pictures), describe)
        except DndError:
            raise
        except Exception as error:
            detail = " ".join(str(error).split())[:300] or type(error).__name__
            raise InvalidInput(
                f"Model {self.name} does not take a batch of pictures "
                f"(images, 3, {self.preprocessing.size[0]}, {self.preprocessing.size[1]}): {detail}"
            ) from error
        if self._sae is not None and self._sae.path not in found:
            raise InvalidInput(
                f"Layer {self._sae.spec.layer!r} of {self.name} has no output (images, units, …), "
                f"which the sparse autoencoder {self._sae.spec.weights} could read."
            )
        classifier = self._find_classifier(list(found.values()))
        if classifier is not None:
            found[classifier] = replace(found[classifier], unit_names=self.unit_names)
        return tuple(found[path] for path in modules if path in found)

    def check_layers(self, layers: Sequence[str]) -> None:
        """Raises UnknownName for a path that is not there, InvalidInput for one without units."""
        self._find_modules(layers)
        known = {layer.path for layer in self._readable}
        for layer in layers:
            if layer not in known:
                raise InvalidInput(
                    f"Layer {layer!r} of {self.name} has no output (images, units, …) in a forward "
                    "pass: choose another one (ListLayers names those that can be labelled)."
                )

    @torch.inference_mode()
    def measure(
        self, pictures: Sequence[np.ndarray], layers: Sequence[str], pooling: Pooling
    ) -> list[Tensor]:
        """Activations of all units on prepared pictures, one pass for all layers.

        Args:
            pictures: Of `preprocessing.prepare`, uint8 (height, width, 3) each.
            layers: Module paths.
            pooling: How a map becomes an activation.

        Returns:
            For each layer (pictures, units), float32, on the device.

        Raises:
            BadAnswer: An activation is not finite.
        """
        size = self.preprocessing.size

        def reduce(layer: str, output: LayerOutput) -> Tensor:
            parts = [pool(part, pooling, size) for part in self._parts(layer, output)]
            return (
                torch.cat(parts)[: len(pictures)] if len(parts) > 1 else parts[0][: len(pictures)]
            )

        pooled = run_with_hooks(
            self._module,
            self._find_modules(layers),
            self._inputs(pictures),
            reduce,
            self._num_runs,
        )
        for layer in layers:
            if not bool(torch.isfinite(pooled[layer]).all()):
                raise BadAnswer(
                    f"Layer {layer!r} of {self.name} answers numbers that are not finite in "
                    f"{self._dtype}: try DND_DTYPE=float32."
                )
        return [pooled[layer] for layer in layers]

    @torch.inference_mode()
    def read_maps(
        self, pictures: Sequence[np.ndarray], layer: str, units: Sequence[Sequence[int]]
    ) -> list[np.ndarray | None]:
        """Activation maps of some units for each picture.

        Args:
            pictures: Of `preprocessing.prepare`.
            layer: Module path.
            units: For each picture, of which units.

        Returns:
            For each picture (units, height, width) float32; None where the layer has no positions.
        """
        size = self.preprocessing.size

        def choose(layer: str, output: LayerOutput) -> list[np.ndarray | None]:
            found: list[np.ndarray | None] = []
            wanted = iter(units)
            for part in self._parts(layer, output):
                maps = maps_of(part, size)
                if maps is None:
                    return [None] * len(pictures)
                # Of a padded batch, the pictures at the end are nobody's.
                for all_maps, chosen in zip(maps, wanted, strict=False):
                    found.append(all_maps[list(chosen)].float().cpu().numpy())
            return found

        modules = self._find_modules([layer])
        inputs = self._inputs(pictures)
        return run_with_hooks(self._module, modules, inputs, choose, self._num_runs)[layer]

    def kind_of(self, layer: str) -> LayerKind:
        """The form of a layer's output."""
        return next(info.kind for info in self._readable if info.path == layer)

    def _listed_modules(self) -> dict[str, nn.Module]:
        """All modules by path; the latents of the autoencoder come behind the layer it reads."""
        modules: dict[str, nn.Module] = {}
        for path, module in self._module.named_modules():
            if path:
                modules[path] = module
            if self._sae is not None and path == self._sae.spec.layer:
                modules[self._sae.path] = self._sae
        return modules

    def _find_modules(self, layers: Sequence[str]) -> dict[str, nn.Module]:
        """The modules whose outputs are read; for latents, that of the layer below them."""
        below = {}
        if self._sae is not None:
            below[self._sae.path] = self._sae.spec.layer
        found = find_modules(self._module, [below.get(layer, layer) for layer in layers])
        return {layer: found[below.get(layer, layer)] for layer in layers}

    def _parts(self, layer: str, output: LayerOutput) -> Iterable[LayerOutput]:
        """What there is of a layer for the images of a batch: latents come a few at a time."""
        if self._sae is not None and layer == self._sae.path:
            return self._sae.encode(output)
        return (output,)

    def _inputs(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Normalised inputs (images, 3, height, width), padded to the fixed batch."""
        rows = np.stack(pad_items(list(pictures), self.fixed_batch))
        pixels = torch.from_numpy(rows).to(self._device).float()
        pixels = (pixels * self.preprocessing.scale - self._mean) / self._std
        # (images, height, width, 3) seen as (images, 3, height, width): channels last in memory.
        return pixels.permute(0, 3, 1, 2).to(self._dtype)

    def _find_classifier(self, layers: Sequence[LayerInfo]) -> str | None:
        """The layer that ran last of those whose units the names may be for."""
        fitting = [
            layer.path
            for layer in layers
            if layer.kind is LayerKind.LINEAR
            and layer.num_units == len(self.unit_names)
            and (self._sae is None or layer.path != self._sae.path)
        ]
        return fitting[-1] if fitting and self.unit_names else None
