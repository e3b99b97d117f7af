"""Weights come to a folder whole and checked, or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from dnd.errors import BadSetting
from dnd.serving.fetch_weights import SUMS, main, read_manifest


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "unet").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "unet" / "model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text("not part of the weights")
    return folder


def manifest_of(tmp_path: Path, **weights: object) -> Path:
    path = tmp_path / "weights.yaml"
    path.write_text(yaml.safe_dump({"weights": weights}))
    return path


def test_recorded_weights_are_fetched_once(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    manifest = manifest_of(tmp_path, scorer={"source": str(source)})
    assert main([str(manifest), str(models)]) == 2
    assert "no files are listed. Run with --record" in capsys.readouterr().err
    assert main([str(manifest), str(models), "--record"]) == 0
    manifest.write_text(capsys.readouterr().out)
    assert set(read_manifest(manifest)[0].files) == {"config.json", "unet/model.safetensors"}

    assert main([str(manifest), str(models)]) == 0
    assert "scorer: 2 files, checked and put there" in capsys.readouterr().out
    found = {p.relative_to(models).as_posix() for p in models.rglob("*") if p.is_file()}
    assert found == {f"scorer/{name}" for name in (SUMS, "config.json", "unet/model.safetensors")}
    assert main([str(manifest), str(models)]) == 0
    assert "was there" in capsys.readouterr().out

    (models / "scorer" / "config.json").write_text("damaged")
    assert main([str(manifest), str(models)]) == 0
    assert (models / "scorer" / "config.json").read_text() == "{}"


def test_other_weights_than_listed_leave_the_folder_as_it_was(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    wrong = {"config.json": "0" * 64}
    manifest = manifest_of(tmp_path, scorer={"source": str(source), "files": wrong})
    assert main([str(manifest), str(models)]) == 2
    assert "config.json with another SHA-256" in capsys.readouterr().err
    more = {"model.safetensors": "0" * 64}
    manifest = manifest_of(tmp_path, scorer={"source": str(source), "files": more})
    assert main([str(manifest), str(models)]) == 2
    assert "model.safetensors missing" in capsys.readouterr().err
    assert list(models.iterdir()) == []


def test_from_the_hub_come_the_listed_files_alone_and_nothing_stays_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a fake of the hub. Repositories hold the same weights in several formats."""
    models = tmp_path / "models"
    models.mkdir()
    asked: list[dict[str, Any]] = []

    def download(repository: str, **how: Any) -> str:
        asked.append({"repository": repository, **how})
        made = Path(how["cache_dir"]) / "snapshot"
        (made / "unet").mkdir(parents=True)
        (made / "unet" / "model.safetensors").write_bytes(b"weights")
        return str(made)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    files = {"unet/model.safetensors": hashlib.sha256(b"weights").hexdigest()}
    source = {"source": "owner/name@0123abc", "files": files}
    assert main([str(manifest_of(tmp_path, synthesizer=source)), str(models)]) == 0
    (call,) = asked
    assert (call["repository"], call["revision"]) == ("owner/name", "0123abc")
    assert call["allow_patterns"] == ["unet/model.safetensors"]
    assert Path(call["cache_dir"]).is_relative_to(models), "/tmp of a pod has no room for weights"
    assert {path.name for path in models.iterdir()} == {"synthesizer"}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"Up/there": {"source": "x"}}, "expected a folder's name"),
        ({"a": {"files": {}}}, "expected 'source: owner/name@revision'"),
        ({"a": {"source": "x", "files": {"../b": "0" * 64}}}, "a path inside the folder"),
        ({"a": {"source": "x", "files": {"b": "123"}}}, "64 hexadecimal digits"),
    ],
)
def test_bad_manifest_is_refused(tmp_path: Path, weights: dict[str, object], message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        read_manifest(manifest_of(tmp_path, **weights))


def test_manifest_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="cannot be read"):
        read_manifest(tmp_path / "nowhere.yaml")
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(BadSetting, match="expected 'weights:'"):
        read_manifest(tmp_path / "list.yaml")
