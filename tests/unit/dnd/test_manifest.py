"""The manifest: order and halves follow the contents of images, and nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from dnd.artifacts import ArtifactStore
from dnd.errors import InvalidInput, NotFound
from dnd.manifest import Manifest, build_manifest, is_judge


def digests(num: int) -> np.ndarray:
    rows = [hashlib.sha256(n.to_bytes(2)).digest() for n in range(num)]
    return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 32)


def test_images_are_in_order_of_their_digests_whatever_order_they_came_in() -> None:
    rows = digests(50)
    one, _ = build_manifest(rows, 0.2)
    other, _ = build_manifest(rows[::-1], 0.2)
    refs = one.refs()
    assert refs == other.refs() == sorted(refs)
    assert refs[0] == "sha256:" + min(row.tobytes().hex() for row in rows)


def test_equal_images_count_once_and_the_first_one_stands_for_them() -> None:
    rows = np.concatenate([digests(5), digests(3)])
    manifest, positions = build_manifest(rows, 0.2)
    assert len(manifest) == 5
    assert sorted(positions) == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(manifest.digests, rows[positions])


def test_half_of_an_image_is_decided_by_its_first_32_bits() -> None:
    rows = digests(400)
    expected = [int(row.tobytes().hex()[:8], 16) / 2**32 < 0.2 for row in rows]
    np.testing.assert_array_equal(is_judge(rows, 0.2), expected)
    assert 0.14 < np.mean(expected) < 0.26


def test_halves_partition_the_images() -> None:
    manifest, _ = build_manifest(digests(100), 0.3)
    both = np.concatenate([manifest.judge_indices(), manifest.select_indices()])
    np.testing.assert_array_equal(np.sort(both), np.arange(100))
    assert not is_judge(manifest.digests, 0.0).any()


def test_manifest_comes_back_from_the_store(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    manifest, _ = build_manifest(digests(20), 0.5)
    ref = manifest.save(store)
    back = Manifest.load(store, ref)
    assert back.refs([3, 7]) == manifest.refs([3, 7])
    np.testing.assert_array_equal(back.judge, manifest.judge)
    assert back.save(store) == ref


@pytest.mark.parametrize("data", [b"text", np.zeros(3)])
def test_something_else_is_refused_as_a_manifest(tmp_path: Path, data: object) -> None:
    store = ArtifactStore(tmp_path)
    ref = store.put_array(data) if isinstance(data, np.ndarray) else store.put_bytes(bytes(data))
    with pytest.raises(InvalidInput, match="GetProbeSet"):
        Manifest.load(store, ref)


def test_missing_manifest_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Manifest.load(ArtifactStore(tmp_path), "sha256:" + "0" * 64)


def test_digests_of_another_shape_are_refused() -> None:
    with pytest.raises(InvalidInput, match="expected uint8"):
        Manifest(np.zeros((2, 16), np.uint8), np.zeros(2, bool))
