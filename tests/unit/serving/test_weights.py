"""Weights are found, named by their digest, and never unpickled."""

from pathlib import Path

import pytest

from dnd.errors import BadSetting, ModelMissing, UnsafeModelFile
from dnd.serving.weights import resolve_weights, weights_digest


def write(folder: Path, **files: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


def test_digest_depends_on_weights_and_configuration_only(tmp_path: Path) -> None:
    base = weights_digest(write(tmp_path / "a", model__safetensors=b"w", config__json=b"{}"))
    same = write(tmp_path / "b", model__safetensors=b"w", config__json=b"{}", card__png=b"p")
    other = write(tmp_path / "c", model__safetensors=b"v", config__json=b"{}")
    moved = write(tmp_path / "d", other__safetensors=b"w", config__json=b"{}")
    assert weights_digest(same) == base
    assert len({base, weights_digest(other), weights_digest(moved)}) == 3


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeModelFile, match="convert them to safetensors"):
        weights_digest(write(tmp_path / "a", pytorch_model__bin=b"w"))


def test_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="holds no weights"):
        weights_digest(write(tmp_path / "a", config__json=b"{}"))


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("", BadSetting, "DND_MODEL is not set"),
        ("/no/such/folder", ModelMissing, "no weights at"),
        ("pack:starter/no_such_model", ModelMissing, "no weights at"),
        ("owner/model", BadSetting, "pinned revision"),
    ],
)
def test_bad_name_is_explained(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        resolve_weights(name)


def test_hub_name_offline_says_where_it_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelMissing, match="owner/model@0123abc"):
        resolve_weights("owner/model@0123abc")
