"""What cannot be loaded says why, in a sentence, before the server serves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel
from unit.scorer.conftest import settings_for

from dnd.errors import BadSetting, DndError, ModelMissing, UnsafeModelFile
from dnd_services.scorer.backend import load_clip

Weights = Callable[[str], Path]


@pytest.fixture
def folder(weights: Weights, tmp_path: Path) -> Path:
    """A copy of the tiny CLIP that may be damaged."""
    return shutil.copytree(weights("clip"), tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "architecture"), [("clip", "CLIPModel"), ("siglip", "SiglipModel")]
)
def test_model_is_described(weights: Weights, name: str, architecture: str) -> None:
    info = load_clip(settings_for(weights(name))).info
    assert (info.architecture, info.dtype, info.device) == (architecture, "float32", "cpu")
    assert (info.name, len(info.digest), info.fixed_batch) == (str(weights(name)), 64, 0)


def test_pickled_weights_are_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(UnsafeModelFile, match="convert them to safetensors"):
        load_clip(settings_for(folder))


def test_incomplete_weights_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["visual_projection.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelMissing, match=r"1 of its tensors .*visual_projection"):
        load_clip(settings_for(folder))


def test_damaged_weights_are_named(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(ModelMissing, match="does not load"):
        load_clip(settings_for(folder))


@pytest.mark.parametrize(
    ("name", "message"),
    [("tokenizer.json", "tokenizer knows"), ("processor_config.json", "does not load")],
)
def test_missing_processor_is_named(folder: Path, name: str, message: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelMissing, match=message):
        load_clip(settings_for(folder))


def test_model_of_another_kind_is_named(folder: Path) -> None:
    """Everything is there, but it embeds no pictures."""
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=90)
    BertModel(config).save_pretrained(folder)
    with pytest.raises(ModelMissing, match="no model that embeds texts and pictures"):
        load_clip(settings_for(folder))


def test_code_of_a_model_folder_is_never_run(folder: Path) -> None:
    marker = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    config = (folder / "config.json").read_text()
    changed = config.replace(
        '"model_type": "clip",',
        '"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", '
        '"AutoModel": "evil.Model"},',
        1,
    )
    assert changed != config
    (folder / "config.json").write_text(changed)
    with pytest.raises(DndError):
        load_clip(settings_for(folder))
    assert not marker.exists()


@pytest.mark.parametrize("device", ["cuda:99", "toaster"])
def test_device_that_is_not_there_is_named(folder: Path, device: str) -> None:
    with pytest.raises(BadSetting, match=f"DND_DEVICE = '{device}'"):
        load_clip(settings_for(folder, device=device))
