"""The artifact store keeps each content once, and says clearly when it cannot."""

import os
from pathlib import Path

import numpy as np
import obstore
import pytest

from dnd.artifacts import ArtifactStore
from dnd.errors import BadSetting, InvalidInput, NotFound, StorageFull, Unavailable


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def num_files(store: ArtifactStore) -> int:
    return sum(1 for path in store.root.rglob("*") if path.is_file())


def test_same_content_is_stored_once(store: ArtifactStore) -> None:
    first = store.put_bytes(b"picture")
    assert store.put_bytes(b"picture") == first
    assert first.startswith("sha256:")
    assert store.get_bytes(first) == b"picture"
    assert num_files(store) == 1


def test_array_comes_back_memory_mapped(store: ArtifactStore) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    back = store.get_array(store.put_array(array))
    assert isinstance(back, np.memmap)
    np.testing.assert_array_equal(back, array)


def test_file_is_moved_in_under_its_digest(store: ArtifactStore, tmp_path: Path) -> None:
    path = tmp_path / "large.npy"
    path.write_bytes(b"large")
    ref = store.put_file(path)
    assert ref == store.put_bytes(b"large")
    assert not path.exists()


def test_key_is_forgotten_with_its_contents(store: ArtifactStore) -> None:
    assert store.recall("key") is None
    ref = store.put_bytes(b"x")
    store.remember("key", ref)
    assert store.recall("key") == ref
    (store.root / "blobs" / ref[7:9] / ref[7:]).unlink()
    assert store.recall("key") is None


@pytest.mark.parametrize("ref", ["", "sha256:12", "../../etc/passwd", "sha256:" + "g" * 64])
def test_reference_of_another_form_never_reaches_the_disk(store: ArtifactStore, ref: str) -> None:
    with pytest.raises(InvalidInput, match="no artifact reference"):
        store.get_bytes(ref)


def test_missing_artifact_is_not_found(store: ArtifactStore) -> None:
    with pytest.raises(NotFound):
        store.get_bytes("sha256:" + "0" * 64)
    with pytest.raises(NotFound):
        store.get_array("sha256:" + "0" * 64)


def test_unusable_root_is_a_bad_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadSetting, match="DND_ARTIFACTS"):
        ArtifactStore(tmp_path / "file" / "store")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_systemic_and_named(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object) -> None:
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")

    monkeypatch.setattr(obstore, "put", fill)
    with pytest.raises(StorageFull, match=f"{store.root} is full"):
        store.put_bytes(b"y")


def test_read_only_folder_is_unavailable(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(obstore, "put", refuse)
    with pytest.raises(Unavailable, match="cannot be written to"):
        store.put_bytes(b"y")
