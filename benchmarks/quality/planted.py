"""Planted units: linear heads on EfficientNet-Lite0's features, each trained for one concept.

    models.yaml: planted: {spec: "python:benchmarks.quality.planted:load"}

METHOD, "Planted units": a head is used only if it finds its concept in a style of drawing that it
was not trained on. Units of two concepts are the larger of two heads; dead and tied units are so
by construction. The heads lie where the variable `QUALITY_PLANTED` says.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from dnd.evaluation.precision import average_precision, count_at_least
from dnd_services.activations.targets import Target
from dnd_services.activations.targets import efficientnet_lite0 as backbone

VARIABLE = "QUALITY_PLANTED"
LAYER = "planted"
MIN_AVERAGE_PRECISION = 0.9
NUM_PAIRS, NUM_DEAD, NUM_TIED = 12, 3, 3


@dataclass(frozen=True)
class PlantedUnit:
    """What a unit responds to.

    Attributes:
        kind: "one", "two", "dead" or "tied".
        concepts: Indices into the world's concepts.
    """

    kind: str
    concepts: tuple[int, ...]


class PlantedUnits(torch.nn.Module):
    """The larger of two concept responses for each unit, cut off at a cap."""

    def __init__(self, num_units: int) -> None:
        super().__init__()
        self.register_buffer("first", torch.zeros(num_units, dtype=torch.long))
        self.register_buffer("second", torch.zeros(num_units, dtype=torch.long))
        self.register_buffer("cap", torch.full((num_units,), torch.inf))
        self.register_buffer("gain", torch.ones(num_units))

    def forward(self, responses: torch.Tensor) -> torch.Tensor:
        """(images, concepts) to (images, units)."""
        larger = torch.maximum(responses[:, self.first], responses[:, self.second])
        return self.gain * torch.minimum(larger, self.cap)


class PlantedNetwork(torch.nn.Module):
    """Features of EfficientNet-Lite0, a response for each concept, the planted units."""

    def __init__(self, num_concepts: int, num_units: int) -> None:
        super().__init__()
        self.backbone: Any = backbone.load().module
        self.concepts = torch.nn.Linear(1280, num_concepts)
        self.planted = PlantedUnits(num_units)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(images, 3, 224, 224) to (images, 1280)."""
        pooled: torch.Tensor = self.backbone.extract_features(images).mean((2, 3))
        return pooled

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.planted(self.concepts(self.features(images)))
        return output


def load() -> Target:
    """The network whose heads `plant` wrote: a factory for models.yaml."""
    heads = load_file(os.environ[VARIABLE])
    network = PlantedNetwork(len(heads["concepts.weight"]), len(heads["planted.first"]))
    network.load_state_dict(heads, strict=False)
    return Target(network, backbone.PREPROCESSING)


@torch.no_grad()
def extract_features(network: PlantedNetwork, pictures: np.ndarray) -> torch.Tensor:
    """Features (pictures, 1280) of uint8 pictures (pictures, 224, 224, 3), prepared as served."""
    network.eval()
    mean = torch.tensor(backbone.PREPROCESSING.mean)
    std = torch.tensor(backbone.PREPROCESSING.std)
    rows = []
    for start in range(0, len(pictures), 64):
        seen = np.stack(
            [
                backbone.PREPROCESSING.prepare(Image.fromarray(one))
                for one in pictures[start : start + 64]
            ]
        )
        batch = (torch.from_numpy(seen).float() * backbone.PREPROCESSING.scale - mean) / std
        rows.append(network.features(batch.permute(0, 3, 1, 2)))
    return torch.cat(rows)


@torch.no_grad()
def class_responses(files: Sequence[Path]) -> np.ndarray:
    """What the 1,000 classifier units of EfficientNet-Lite0 answer to images: (files, 1000)."""
    network = PlantedNetwork(1, 1)  # for its backbone
    pictures = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    responses: np.ndarray = network.backbone._fc(extract_features(network, pictures)).numpy()
    return responses


def train_heads(
    features: torch.Tensor, labels: torch.Tensor, num_concepts: int, steps: int = 400
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and biases of one-against-all logistic regressions; each concept's views answer 1.

    Responses are scaled so that a concept's own views have mean 1 and all others mean 0.
    """
    torch.manual_seed(0)
    mean, deviation = features.mean(0), features.std(0) + 1e-3
    x = (features - mean) / deviation
    y = torch.nn.functional.one_hot(labels, num_concepts).float()
    head = torch.nn.Linear(x.shape[1], num_concepts)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.1)
    for _ in range(steps):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            head(x), y, pos_weight=torch.tensor(float(num_concepts) / 4)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        logits = head(x)
        own = (logits * y).sum(0) / y.sum(0)
        others = (logits * (1 - y)).sum(0) / (1 - y).sum(0)
        scale = 1 / (own - others).clamp(min=1e-3)
        weight = head.weight * scale[:, None] / deviation
        bias = (head.bias - others) * scale - weight @ mean
    return weight, bias


def plant(
    path: Path, train: np.ndarray, other_style: np.ndarray, seed: int = 0
) -> tuple[tuple[PlantedUnit, ...], np.ndarray]:
    """Trains the heads and writes them to `path`.

    Args:
        train: uint8 (concepts, views, 224, 224, 3) in one style.
        other_style: The same concepts in another style.

    Returns:
        What each unit responds to, and each head's average precision in the other style.
    """
    num_concepts, num_views = train.shape[:2]
    network = PlantedNetwork(num_concepts, 0)
    features = extract_features(network, train.reshape(-1, *train.shape[2:]))
    labels = torch.arange(num_concepts).repeat_interleave(num_views)
    weight, bias = train_heads(features, labels, num_concepts)

    other = extract_features(network, other_style.reshape(-1, *train.shape[2:]))
    other_labels = torch.arange(num_concepts).repeat_interleave(other_style.shape[1])
    counts = count_at_least((other @ weight.T + bias).T.double().numpy())
    own = other_labels.numpy() == np.arange(num_concepts)[:, None]
    precision = np.array(
        [average_precision(*pair)[0] for pair in zip(own, counts[:, None], strict=True)]
    )
    found = np.flatnonzero(precision >= MIN_AVERAGE_PRECISION).tolist()
    units = _compose_units(found, random.Random(seed))
    caps = torch.full((len(units),), torch.inf)
    gains = torch.ones(len(units))
    responses = features @ weight.T + bias
    for number, unit in enumerate(units):
        if unit.kind == "tied":
            caps[number] = responses[:, unit.concepts[0]].median()  # reached by half of the images
        if unit.kind == "dead":
            gains[number] = 0.0
    save_file(
        {
            "concepts.weight": weight.contiguous(),
            "concepts.bias": bias.contiguous(),
            "planted.first": torch.tensor([unit.concepts[0] for unit in units]),
            "planted.second": torch.tensor([unit.concepts[-1] for unit in units]),
            "planted.cap": caps,
            "planted.gain": gains,
        },
        path,
    )
    return units, precision


def _compose_units(found: list[int], rng: random.Random) -> tuple[PlantedUnit, ...]:
    """One unit for each head that holds; pairs, dead and tied ones of some of them."""
    pairs = [tuple(rng.sample(found, 2)) for _ in range(NUM_PAIRS)]
    return (
        *(PlantedUnit("one", (concept,)) for concept in found),
        *(PlantedUnit("two", pair) for pair in pairs),
        *(PlantedUnit("dead", (concept,)) for concept in rng.sample(found, NUM_DEAD)),
        *(PlantedUnit("tied", (concept,)) for concept in rng.sample(found, NUM_TIED)),
    )
