"""What cannot be loaded says why, in a sentence, before the server serves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from unit.synthesizer.conftest import settings_for

from dnd.errors import BadSetting, DndError, ModelMissing, UnsafeModelFile
from dnd_services.synthesizer.backend import load_synthesizer

Weights = Callable[[str], Path]


@pytest.fixture
def folder(weights: Weights, tmp_path: Path) -> Path:
    """A copy of the tiny SD pipeline that may be damaged."""
    return shutil.copytree(weights("sd"), tmp_path / "model")


def test_pipeline_is_described(weights: Weights) -> None:
    info = load_synthesizer(settings_for(weights("sdxl"))).info
    assert info.architecture == "StableDiffusionXLPipeline"
    assert (info.name, info.dtype, info.device) == (str(weights("sdxl")), "float32", "cpu")
    assert (len(info.digest), info.fixed_batch) == (64, 0)


def test_pickled_part_is_refused_when_the_others_are_safe(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    with pytest.raises(UnsafeModelFile, match="convert it to safetensors"):
        load_synthesizer(settings_for(folder))


def test_pickled_weights_are_refused(folder: Path) -> None:
    for path in folder.rglob("*.safetensors"):
        torch.save({}, path.with_suffix(".bin"))
        path.unlink()
    with pytest.raises(UnsafeModelFile, match="convert them to safetensors"):
        load_synthesizer(settings_for(folder))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "scheduler", "tokenizer"])
def test_missing_part_is_named(folder: Path, part: str) -> None:
    shutil.rmtree(folder / part)
    with pytest.raises(ModelMissing, match=part):
        load_synthesizer(settings_for(folder))


@pytest.mark.parametrize("part", ["unet", "text_encoder", "tokenizer"])
def test_empty_part_is_named(folder: Path, part: str) -> None:
    for path in (folder / part).iterdir():
        path.unlink()
    with pytest.raises(ModelMissing, match=part):
        load_synthesizer(settings_for(folder))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_incomplete_part_is_named(folder: Path, part: str) -> None:
    (path,) = (folder / part).glob("*.safetensors")
    tensors = load_file(path)
    del tensors[min(tensors)]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelMissing, match=part):
        load_synthesizer(settings_for(folder))


def test_folder_that_holds_no_pipeline_is_named(folder: Path) -> None:
    with pytest.raises(ModelMissing, match=r"model_index\.json"):
        load_synthesizer(settings_for(folder / "unet"))


def test_pipeline_of_another_class_is_named(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    index["_class_name"] = "DDPMPipeline"
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(BadSetting, match="holds a DDPMPipeline; expected one of StableDiffusion"):
        load_synthesizer(settings_for(folder))


def test_code_of_a_model_folder_is_never_run(folder: Path) -> None:
    marker = folder / "ran"
    (folder / "unet" / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Net: ...\n")
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Net: ...\n")
    index = json.loads((folder / "model_index.json").read_text())
    for changes in ({"unet": ["evil", "Net"]}, {"_class_name": ["evil", "Net"]}):
        (folder / "model_index.json").write_text(json.dumps(index | changes))
        with pytest.raises(DndError):
            load_synthesizer(settings_for(folder))
    assert not marker.exists()


def test_files_of_a_variant_are_read_when_it_is_set(folder: Path) -> None:
    for path in folder.rglob("*.safetensors"):
        path.rename(path.with_suffix(".fp16.safetensors"))
    assert load_synthesizer(settings_for(folder), "fp16").info.dtype == "float32"
    with pytest.raises(ModelMissing):
        load_synthesizer(settings_for(folder))


def test_device_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(BadSetting, match="DND_DEVICE = 'cuda:99'"):
        load_synthesizer(settings_for(folder, device="cuda:99"))
