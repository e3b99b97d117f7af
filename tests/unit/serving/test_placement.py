"""Device, number type and threads; why weights do not load; equal bits in every row."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dnd.errors import BadSetting, ModelMissing, UnsafeModelFile
from dnd.serving.placement import loading, place_model
from dnd.settings import ModelServerSettings


def test_device_number_type_and_threads_are_those_of_the_settings() -> None:
    before = torch.get_num_threads()
    try:
        placement = place_model(ModelServerSettings(dtype="bfloat16", threads=1))
        assert placement.device == torch.device("cpu")
        assert placement.dtype is torch.bfloat16
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("device", ["cuda:99", "toaster", "cpu:x"])
def test_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(BadSetting, match=f"DND_DEVICE = '{device}'"):
        place_model(ModelServerSettings(device=device))


def test_missing_torch_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BadSetting, match="install the extra"):
        place_model(ModelServerSettings())


# In a process of its own: the matrix library is asked before it multiplies for the first time.
SAME_ROWS = """
import torch
from dnd.serving.placement import place_model
from dnd.settings import ModelServerSettings
place_model(ModelServerSettings(fixed_batch=True, threads=2))
torch.manual_seed(0)
for rows in (2, 6, 16):
    for shape in ((32,), (256,), (5, 64)):
        x = torch.randn(1, *shape).repeat(rows, *[1] * len(shape))
        y = torch.nn.functional.linear(x, torch.randn(64, shape[-1]))
        assert bool((y == y[:1]).all()), (rows, shape)
"""


def test_equal_rows_have_equal_bits_when_the_batch_is_fixed() -> None:
    run = subprocess.run(
        [sys.executable, "-c", SAME_ROWS], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_weights_that_do_not_load_are_named(tmp_path: Path) -> None:
    message = "nets does not load: KeyError: 'hidden_size'"
    with pytest.raises(ModelMissing, match=message), loading("nets", tmp_path):
        raise KeyError("hidden_size")


def test_part_that_is_only_a_pickle_is_unsafe(tmp_path: Path) -> None:
    (tmp_path / "net.bin").write_bytes(b"pickle")
    message = "convert it to safetensors"
    with pytest.raises(UnsafeModelFile, match=message), loading("nets", tmp_path):
        raise OSError("no file named net.safetensors found")
