"""A small convolutional network trained here to tell kinds of emoji apart; its outputs are units.

    models.yaml: groups: {spec: "python:benchmarks.quality.groups:load"}

The weights lie where the variable `QUALITY_GROUPS` says.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from benchmarks.quality.world import draw_view
from dnd_packs.starter.emoji_data import (
    EmojiConcept,
    load_concepts,
    openmoji_svg_paths,
    rasterise_svg,
)
from dnd_services.activations.targets import Preprocessing, Target

VARIABLE = "QUALITY_GROUPS"
LAYER = "classes"
SIZE = 64
MAX_CONCEPTS = 30  # of a kind: there are 258 flags of countries
KINDS = {
    "face-smiling": "smiling face",
    "cat-face": "cat face",
    "heart": "heart",
    "animal-mammal": "mammal",
    "animal-bird": "bird",
    "animal-marine": "sea animal",
    "plant-flower": "flower",
    "food-fruit": "fruit",
    "drink": "drink",
    "transport-ground": "land vehicle",
    "place-building": "building",
    "time": "clock",
    "clothing": "clothing",
    "musical-instrument": "musical instrument",
    "country-flag": "flag",
    "arrow": "arrow",
}
"""Subgroups that the network learns to tell apart, and what each is called."""

PREPROCESSING = Preprocessing((SIZE, SIZE), None, (127.5,) * 3, (127.5,) * 3, 1.0, "box")


class GroupNetwork(torch.nn.Sequential):
    """Three convolutions and a linear layer over the mean of the last."""

    def __init__(self) -> None:
        super().__init__()
        width = (3, 24, 48, 96)
        for place, (inputs, outputs) in enumerate(itertools.pairwise(width)):
            self.append_named(
                f"conv{place}", torch.nn.Conv2d(inputs, outputs, 5, stride=2, padding=2)
            )
            self.append_named(f"norm{place}", torch.nn.BatchNorm2d(outputs))
            self.append_named(f"relu{place}", torch.nn.ReLU())
        self.append_named("pool", torch.nn.AdaptiveAvgPool2d(1))
        self.append_named("flat", torch.nn.Flatten())
        self.append_named(LAYER, torch.nn.Linear(width[-1], len(KINDS)))

    def append_named(self, name: str, module: torch.nn.Module) -> None:
        self.add_module(name, module)


def load() -> Target:
    """The network that `train` wrote: a factory for models.yaml."""
    network = GroupNetwork()
    network.load_state_dict(load_file(os.environ[VARIABLE]))
    return Target(network, PREPROCESSING, tuple(KINDS.values()))


def concepts_of_kinds() -> list[EmojiConcept]:
    """The emoji that the network learns from: none that the pack's training withholds."""
    known = [c for c in load_concepts() if not c.withheld]
    by_kind = {kind: [c for c in known if c.subgroup == kind] for kind in KINDS}
    return [concept for concepts in by_kind.values() for concept in concepts[:MAX_CONCEPTS]]


def train(path: Path, num_views: int = 12, num_epochs: int = 12, seed: int = 0) -> float:
    """Trains on views of OpenMoji and writes the weights.

    Returns:
        The share of right answers on views that it has not seen.
    """
    torch.manual_seed(seed)
    rng, order = random.Random(seed), torch.Generator().manual_seed(seed)
    concepts, kinds = concepts_of_kinds(), list(KINDS)
    pictures = _views(concepts, num_views + 2, rng)
    labels = torch.tensor([kinds.index(c.subgroup) for c in concepts])
    seen = pictures[:, :num_views].flatten(0, 1)
    answers = labels.repeat_interleave(num_views)
    network = GroupNetwork().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    for _ in range(num_epochs):
        for chosen in torch.randperm(len(seen), generator=order).split(64):
            loss = torch.nn.functional.cross_entropy(network(seen[chosen]), answers[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()
    save_file({name: t.contiguous() for name, t in network.state_dict().items()}, path)
    with torch.no_grad():
        guesses = network(pictures[:, num_views:].flatten(0, 1)).argmax(1)
    return float((guesses == labels.repeat_interleave(2)).float().mean())


def _views(concepts: Sequence[EmojiConcept], num_views: int, rng: random.Random) -> torch.Tensor:
    """float32 (concepts, views, 3, `SIZE`, `SIZE`), normalised."""
    paths = openmoji_svg_paths()
    rows = []
    for concept in concepts:
        rgba = rasterise_svg(paths[concept.hexcode].read_text(encoding="utf-8"), 224)
        views = [
            PREPROCESSING.prepare(Image.fromarray(draw_view(rgba, rng))) for _ in range(num_views)
        ]
        rows.append(np.stack(views))
    array = torch.from_numpy(np.stack(rows)).float() / 127.5 - 1
    return array.permute(0, 1, 4, 2, 3).contiguous()
