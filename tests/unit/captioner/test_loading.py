"""What cannot be loaded says why, in a sentence, before the server serves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel
from unit.captioner.conftest import settings_for

from dnd.errors import BadSetting, DndError, ModelMissing, UnsafeModelFile
from dnd_services.captioner.backend import load_captioner

Weights = Callable[[str], Path]


@pytest.fixture
def folder(weights: Weights, tmp_path: Path) -> Path:
    """A copy of the tiny BLIP that may be damaged."""
    return shutil.copytree(weights("blip"), tmp_path / "model")


def test_model_is_described(weights: Weights) -> None:
    info = load_captioner(settings_for(weights("blip"))).info
    assert info.architecture == "BlipForConditionalGeneration"
    assert (info.name, info.dtype, info.device) == (str(weights("blip")), "float32", "cpu")
    assert (len(info.digest), info.fixed_batch) == (64, 0)


def test_pickled_weights_are_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(UnsafeModelFile, match="convert them to safetensors"):
        load_captioner(settings_for(folder))


def test_incomplete_weights_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["vision_model.post_layernorm.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelMissing, match=r"1 of its tensors .*post_layernorm"):
        load_captioner(settings_for(folder))


def test_damaged_weights_are_named(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(ModelMissing, match="does not load"):
        load_captioner(settings_for(folder))


def test_model_of_another_kind_is_named(tmp_path: Path) -> None:
    config = CLIPTextConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    CLIPTextModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelMissing, match="does not load"):
        load_captioner(settings_for(tmp_path))


def test_missing_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelMissing, match="tokenizer knows 5 of the model's"):
        load_captioner(settings_for(folder))


def test_model_that_needs_a_prompt_says_so_when_there_is_none(
    weights: Weights, tmp_path: Path
) -> None:
    folder = shutil.copytree(weights("chat"), tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelMissing, match="does not caption a picture with DND_PROMPT = ''"):
        load_captioner(settings_for(folder))
    load_captioner(settings_for(folder), "<image> what is this")


def test_code_of_a_model_folder_is_never_run(folder: Path) -> None:
    marker = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(
        config.replace(
            '"model_type": "blip"',
            '"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", '
            '"AutoModelForImageTextToText": "evil.Model"}',
            1,
        )
    )
    with pytest.raises(DndError):
        load_captioner(settings_for(folder))
    assert not marker.exists()


@pytest.mark.parametrize("device", ["cuda:99", "toaster"])
def test_device_that_is_not_there_is_named(folder: Path, device: str) -> None:
    with pytest.raises(BadSetting, match=f"DND_DEVICE = '{device}'"):
        load_captioner(settings_for(folder, device=device))
