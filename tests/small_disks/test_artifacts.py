"""The artifact store on a disk that is full."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_disks.conftest import MIB, Disk

from dnd.artifacts import ArtifactStore, file_reference, reference_of
from dnd.errors import StorageFull

BIG = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def disk(make_disk: Callable[[str, int], Disk]) -> Disk:
    return make_disk("artifacts", 8)


def names_on(disk: Disk) -> set[Path]:
    return {path for path in disk.folder.rglob("*") if path.is_file()}


def test_full_disk_is_told_and_nothing_half_written_stays(disk: Disk) -> None:
    store = ArtifactStore(disk.folder)
    before = store.put_bytes(b"stored before")
    store.remember("key", before)
    disk.fill()
    there = names_on(disk)
    writes: list[Callable[[], object]] = [
        lambda: store.put_bytes(BIG),
        lambda: store.put_array(np.zeros((300, 300))),
        lambda: store.remember("other key", before),
    ]
    for write in writes:
        with pytest.raises(StorageFull, match="is full: free some space"):
            write()
    assert names_on(disk) == there
    assert store.get_bytes(before) == b"stored before"
    assert store.recall("key") == before
    assert store.put_bytes(b"stored before") == before  # nothing to write
    assert {one.name for one in store.list_contents()} == {before}

    disk.free()
    assert store.get_bytes(store.put_bytes(BIG)) == BIG
    assert (store.get_array(store.put_array(np.ones((300, 300)))) == 1).all()


def test_disk_that_fills_up_in_the_middle_of_a_file_leaves_no_draft(disk: Disk) -> None:
    store = ArtifactStore(disk.folder)

    def write_too_much(folder: Path) -> None:
        with (folder / "file").open("wb") as file:
            for _ in range(10 * MIB // len(BIG)):
                file.write(BIG)

    with pytest.raises(StorageFull), store.drafts() as folder:
        write_too_much(folder)
    assert names_on(disk) == set()
    with store.drafts() as folder:
        draft = folder / "file"
        draft.write_bytes(BIG)
        assert file_reference(draft) == reference_of(BIG)
        assert store.put_file(draft) == reference_of(BIG)
    assert store.get_bytes(reference_of(BIG)) == BIG


def test_contents_that_nearly_fit_are_refused_whole(disk: Disk) -> None:
    """Some of their bytes fit: they must not be found under the reference of all of them."""
    store = ArtifactStore(disk.folder)
    disk.fill()
    ballast = disk.folder / "ballast"
    with ballast.open("rb+") as file:
        file.truncate(ballast.stat().st_size - MIB // 2)
    there = names_on(disk)
    with pytest.raises(StorageFull):
        store.put_bytes(BIG)
    assert reference_of(BIG) not in store
    assert names_on(disk) == there
    assert len(store.put_bytes(b"this much fits")) == len(reference_of(b""))
