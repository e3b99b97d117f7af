"""Archives of torch.export: every layer is found again, and loading one never runs code from it."""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import networks
from torch import nn
from unit.activations.conftest import CPU, draw
from unit.activations.test_loaders import Trap, load, save_trap

from dnd.errors import InvalidInput, UnknownName, UnsafeModelFile
from dnd.profiles import Pooling
from dnd_services.activations.network import Network

PREPROCESSING = {"size": [networks.SIDE] * 2, "shortest_edge": None, "unit_names": networks.CLASSES}
BATCH = {0: torch.export.Dim("images", min=1)}


def save(
    path: Path,
    module: nn.Module,
    *,
    shape: tuple[int, ...] = (2, 3, networks.SIDE, networks.SIDE),
    dynamic: Any = BATCH,
    preprocessing: Any = PREPROCESSING,
) -> Path:
    program = torch.export.export(module, (torch.rand(shape),), dynamic_shapes=(dynamic,))
    extra = {"preprocessing.json": json.dumps(preprocessing)} if preprocessing is not None else {}
    torch.export.save(program, path, extra_files=extra)
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny CNN."""
    return save(tmp_path_factory.mktemp("export") / "cnn.pt2", networks.load_cnn().module.eval())


def rewrite(source: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A copy of an archive whose files `change` has had its hands on."""
    with zipfile.ZipFile(source) as archive:
        files = {info.filename.partition("/")[2]: archive.read(info) for info in archive.infolist()}
    change(files)
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"cnn/{name}", data)
    return target


def edit(files: dict[str, bytes], name: str, change: Callable[[str], str]) -> None:
    before = files[name].decode()
    after = change(before)
    assert after != before
    files[name] = after.encode()


PROGRAM = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"


# --- What a good archive gives --------------------------------------------------------------------


def test_layers_and_activations_are_those_of_the_network_before(archive: Path) -> None:
    original = networks.load_cnn()
    before = Network("before", original, CPU)
    found = load(f"export:{archive}")
    after = Network("after", found, CPU)
    shown = [(one.path, one.module, one.kind, one.num_units) for one in after.layers]
    known = [(one.path, one.module, one.kind, one.num_units) for one in before.layers]
    assert set(shown) <= set(known)
    assert {path for path, *_ in shown} >= {path for path, *_ in known if "." not in path}
    assert found.unit_names == tuple(networks.CLASSES)
    pictures = [np.asarray(draw(n, (networks.SIDE,) * 2)) for n in range(5)]
    plain = Network("plain", type(found)(original.module, found.preprocessing), CPU)
    layers = [path for path, *_ in shown]
    for got, expected in zip(
        after.measure(pictures, layers, Pooling.MEAN),
        plain.measure(pictures, layers, Pooling.MEAN),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


def test_unknown_layer_is_answered_with_near_ones(archive: Path) -> None:
    network = Network("net", load(f"export:{archive}"), CPU)
    path = network.layers[0].path
    with pytest.raises(UnknownName, match=f"Did you mean '{re.escape(path)}'"):
        network.check_layers([path + "x"])


def test_transformer_keeps_tokens_and_linear_layers(tmp_path: Path) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(16)
            self.mlp = nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.mlp(self.norm(x))

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 16, 8, stride=8)
            self.blocks = nn.ModuleList([Block(), Block()])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.patches(x).flatten(2).transpose(1, 2)
            for block in self.blocks:
                y = block(y)
            return y

    module = Tiny().eval()
    path = save(tmp_path / "vit.pt2", module, shape=(2, 3, 32, 32), preprocessing={})
    network = Network("vit", load(f"export:{path}"), CPU)
    kinds = {one.path: (one.module, one.kind.value) for one in network.layers}
    assert kinds["patches"] == ("Conv2d", "conv")
    assert kinds["blocks.1"] == ("Block", "tokens")
    assert kinds["blocks.1.mlp"] == ("Linear", "tokens")
    assert network.preprocessing.size == (32, 32)


def test_preprocessing_may_lie_beside_the_archive(archive: Path, tmp_path: Path) -> None:
    path = rewrite(archive, tmp_path / "net.pt2", lambda f: f.pop("extra/preprocessing.json"))
    with pytest.raises(InvalidInput, match=r"Nothing says how .* put net\.preprocessing\.json"):
        load(f"export:{path}")
    beside = tmp_path / "net.preprocessing.json"
    beside.write_text(json.dumps({"scale": 1.0}))
    assert load(f"export:{path}").preprocessing.scale == 1.0
    for text, message in (
        ("text", "is no JSON"),
        ("[]", "expected a mapping"),
        ('{"sise": [8, 8]}', "no key 'sise'. Did you mean 'size'"),
        ('{"size": [8, 8], "shortest_edge": null}', "but the graph takes pictures of"),
        ('{"mean": 3}', "preprocessing.json of 'export:"),
        ('{"resample": "best"}', "Preprocessing.resample = 'best'"),
    ):
        beside.write_text(text)
        with pytest.raises(InvalidInput, match=message):
            load(f"export:{path}")


# --- What cannot be labelled ----------------------------------------------------------------------


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def test_network_that_does_not_take_a_batch_of_pictures_says_why(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    for save_it, message in (
        (lambda: save(path, conv.eval(), dynamic=None), r"batches of 2 only: export it with dyn"),
        (lambda: save(path, conv.train()), "exported in training mode"),
        (lambda: save(path, nn.Linear(8, 2).eval(), shape=(2, 8)), r"takes \('\?', 8\): expected"),
        (lambda: save(path, Pair().eval()), "has no modules"),
    ):
        save_it()
        with pytest.raises(InvalidInput, match=message):
            load(f"export:{path}")


def test_file_that_is_no_archive_says_so(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="no such file"):
        load(f"export:{tmp_path}/none.pt2")
    whole = archive.read_bytes()
    for data in (b"", b"text", whole[: len(whole) // 2]):
        (tmp_path / "net.pt2").write_bytes(data)
        with pytest.raises(InvalidInput, match=r"is no archive of torch\.export\.save"):
            load(f"export:{tmp_path}/net.pt2")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "net.pt2")
    with pytest.raises(InvalidInput, match="Weights alone"):
        load(f"export:{tmp_path}/net.pt2")
    path = rewrite(archive, tmp_path / "net.pt2", lambda files: files.pop(WEIGHTS))
    with pytest.raises(InvalidInput, match="is incomplete"):
        load(f"export:{path}")


# --- What would run code --------------------------------------------------------------------------


def test_pickles_are_refused_or_never_looked_at(archive: Path, tmp_path: Path) -> None:
    checkpoint, sprung = save_trap(tmp_path)
    trap = checkpoint.read_bytes()

    def pickled_weight(files: dict[str, bytes]) -> None:
        files["data/weights/weight_0"] = trap
        edit(files, WEIGHTS, lambda text: text.replace('"use_pickle": false', '"use_pickle": true'))

    def constant(name: str) -> Callable[[dict[str, bytes]], None]:
        def change(files: dict[str, bytes]) -> None:
            payload = {"path_name": name, "is_param": False, "use_pickle": True}
            config = {"config": {"constant": payload | {"tensor_meta": None}}}
            files["data/constants/model_constants_config.json"] = json.dumps(config).encode()
            files[f"data/constants/{name}"] = pickle.dumps(Trap(sprung))

        return change

    for change in (
        pickled_weight,
        constant("opaque_obj_0"),
        constant("custom_obj_0"),
        constant("tensor_0"),
        lambda files: files.update({"data/weights/model.pt": trap}),
        lambda files: files.update({"data/aotinductor/model/model.so": b"\x7fELF"}),
    ):
        with pytest.raises(UnsafeModelFile, match="run"):
            load(f"export:{rewrite(archive, tmp_path / 'net.pt2', change)}")
    path = rewrite(
        archive,
        tmp_path / "net.pt2",
        lambda files: files.update({"data/sample_inputs/model.pt": trap}),
    )
    load(f"export:{path}")
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        (r"torch\.ops\.aten\.conv2d\.default", "torch.os.system", "an operation 'torch.os.system'"),
        (r"torch\.ops\.aten\.conv2d\.default", "_operator.methodcaller", "an operation"),
        (r"torch\.ops\.aten\.conv2d\.default", "torch.ops.evil.run.default", "an operation"),
        (r"Symbol\('s\d+'[^\"]*", "__import__('os').system('touch SPRUNG')", "an expression"),
        (r"Symbol\('s\d+'[^\"]*", "lambdify(0, 0)", "an expression"),
        (r"Symbol\('s\d+'[^\"]*", "open(s0)", "an expression"),
        (r"builtins\.tuple", "collections.defaultdict", "a structure"),
        (r'"guards_code": \[', '"guards_code": ["print(1)"', "a guard"),
        (r'"name": "p_conv1_weight"', '"name": "x = print(1)"', "a name"),
    ],
)
def test_graph_with_code_in_it_is_refused(
    archive: Path, tmp_path: Path, pattern: str, replacement: str, message: str
) -> None:
    def change(files: dict[str, bytes]) -> None:
        edit(files, PROGRAM, lambda text: re.sub(pattern, lambda _: replacement, text))

    path = rewrite(archive, tmp_path / "net.pt2", change)
    with pytest.raises(UnsafeModelFile, match=re.escape(message)):
        load(f"export:{path}")


def test_file_that_is_there_twice_is_refused(archive: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO(archive.read_bytes())
    with (
        zipfile.ZipFile(buffer, "a") as changed,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        changed.writestr(next(n for n in changed.namelist() if n.endswith(PROGRAM)), b"{}")
    (tmp_path / "net.pt2").write_bytes(buffer.getvalue())
    with pytest.raises(UnsafeModelFile, match="twice"):
        load(f"export:{tmp_path}/net.pt2")
