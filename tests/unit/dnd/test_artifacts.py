"""The artifact store keeps each content once, and says clearly when it cannot."""

import os
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
    with pytest.raises(Unavailable, match="cannot be used"):
        store.put_bytes(b"y")


# --- A disk that is full --------------------------------------------------------------------------


@contextmanager
def small_disk(num_bytes: int) -> Iterator[None]:
    """No file grows beyond this: the storage library fails half-way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_half_written_content_is_not_there_afterwards(store: ArtifactStore) -> None:
    data = os.urandom(200_000)
    with small_disk(100_000), pytest.raises(StorageFull, match="is full"):
        store.put_bytes(data)
    assert num_files(store) == 0
    assert store.get_bytes(store.put_bytes(data)) == data


def test_draft_that_fills_the_disk_is_gone_afterwards(store: ArtifactStore) -> None:
    def write_on() -> None:
        with store.drafts() as folder, open(folder / "large", "wb", buffering=0) as file:
            while True:
                file.write(bytes(60_000))

    with small_disk(100_000), pytest.raises(StorageFull, match="is full"):
        write_on()
    assert list(store.root.iterdir()) == []


def test_draft_of_a_killed_process_is_removed_after_a_week(store: ArtifactStore) -> None:
    folders = [store.root / f"draft-{name}" for name in ("old", "under-way", "new")]
    for folder in folders:
        folder.mkdir()
        (folder / "half.npy").write_bytes(b"half")
    week_ago = time.time() - 8 * 24 * 3600
    os.utime(folders[0] / "half.npy", (week_ago, week_ago))
    for folder in folders[:2]:
        os.utime(folder, (week_ago, week_ago))
    ArtifactStore(store.root)
    assert [folder.exists() for folder in folders] == [False, True, True]


def test_half_written_files_of_killed_processes_are_not_listed_and_go_after_a_week(
    store: ArtifactStore,
) -> None:
    (found,) = store.root.rglob(store.put_bytes(b"whole").removeprefix("sha256:"))
    new, old = (found.with_name(f"{found.name}#{number}") for number in (1, 2))  # as obstore's are
    for draft in (new, old):
        draft.write_bytes(b"who")
    week_ago = time.time() - 8 * 24 * 3600
    os.utime(old, (week_ago, week_ago))
    assert [stored.num_bytes for stored in store.list_contents()] == [5]
    assert (new.exists(), old.exists()) == (True, False)


def test_error_of_another_kind_passes_through_and_the_draft_is_gone(store: ArtifactStore) -> None:
    with pytest.raises(FileNotFoundError), store.drafts() as folder:
        (folder / "nothing").read_bytes()
    assert list(store.root.iterdir()) == []


def test_file_from_another_disk_is_copied_and_taken_away(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "replace", refuse)
    path = tmp_path / "elsewhere"
    path.write_bytes(b"far")
    assert store.get_bytes(store.put_file(path)) == b"far"
    assert not path.exists()


# --- Contents that are not what they were ---------------------------------------------------------


def blob(store: ArtifactStore, ref: str) -> Path:
    return store.root / "blobs" / ref[7:9] / ref[7:]


@pytest.mark.parametrize("damage", [b"", b"pic", b"pictuRe", b"picture and more"])
def test_damaged_content_is_not_found_and_can_be_stored_again(
    store: ArtifactStore, damage: bytes
) -> None:
    ref = store.put_bytes(b"picture")
    store.remember("key", ref)
    blob(store, ref).write_bytes(damage)
    with pytest.raises(NotFound, match="made again"):
        store.get_bytes(ref)
    assert store.recall("key") is None
    assert store.put_bytes(b"picture") == ref
    assert store.get_bytes(ref) == b"picture"


def test_content_that_was_cut_off_is_mended_by_storing_it_again(
    store: ArtifactStore, tmp_path: Path
) -> None:
    ref = store.put_bytes(b"picture")
    blob(store, ref).write_bytes(b"pi")
    assert store.put_bytes(b"picture") == ref
    assert blob(store, ref).read_bytes() == b"picture"
    blob(store, ref).write_bytes(b"pi")
    (tmp_path / "file").write_bytes(b"picture")
    assert store.put_file(tmp_path / "file") == ref
    assert store.get_bytes(ref) == b"picture"


@pytest.mark.parametrize("keep", [0, 5, 60, 130])
def test_array_that_was_cut_off_is_not_found(store: ArtifactStore, keep: int) -> None:
    ref = store.put_array(np.arange(100.0))
    path = blob(store, ref)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(NotFound, match="made again"):
        store.get_array(ref)
    assert ref not in store


@pytest.mark.parametrize("data", [b"text", b"", b"PK\x03\x04 an archive"])
def test_content_of_another_kind_is_no_array(store: ArtifactStore, data: bytes) -> None:
    ref = store.put_bytes(data)
    with pytest.raises(InvalidInput, match="is no array"):
        store.get_array(ref)
    assert store.get_bytes(ref) == data


def test_array_of_objects_is_not_unpickled(store: ArtifactStore, tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    ref = store.put_file(tmp_path / "objects.npy")
    with pytest.raises(InvalidInput, match="is no array"):
        store.get_array(ref)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (2, 3)])
def test_array_of_any_shape_comes_back(store: ArtifactStore, shape: tuple[int, ...]) -> None:
    assert store.get_array(store.put_array(np.ones(shape, np.float16))).shape == shape


@pytest.mark.parametrize("content", [b"", b"sha256:12", b"../../etc/passwd", b"\xff\xfe"])
def test_damaged_key_points_to_nothing(store: ArtifactStore, content: bytes) -> None:
    store.remember("key", store.put_bytes(b"x"))
    (path,) = (path for path in (store.root / "keys").rglob("*") if path.is_file())
    path.write_bytes(content)
    assert store.recall("key") is None


# --- Many writers, and names that lead elsewhere --------------------------------------------------


def test_writers_of_one_key_leave_one_of_their_references(tmp_path: Path) -> None:
    """Replicas that computed the same at the same time: a reader sees one or the other, whole."""
    stores = [ArtifactStore(tmp_path / "store") for _ in range(4)]
    refs = [stores[0].put_bytes(b"result %d" % number) for number in range(4)]
    stores[0].remember("key", refs[0])
    seen: list[str | None] = []

    def work(number: int) -> None:
        for _ in range(50):
            stores[number].remember("key", refs[number])
            seen.append(stores[number].recall("key"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert set(seen) <= set(refs)
    assert len(seen) == 200
    assert num_files(stores[0]) == 5


def test_writers_of_one_content_store_it_once(tmp_path: Path) -> None:
    stores = [ArtifactStore(tmp_path / "store") for _ in range(4)]
    contents = [bytes([number]) * 50_000 for number in range(20)]

    def work(store: ArtifactStore) -> list[str]:
        return [store.put_bytes(data) for data in contents]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, stores))
    assert all(refs == found[0] for refs in found)
    assert num_files(stores[0]) == 20
    assert [stores[1].get_bytes(ref) for ref in found[0]] == contents


@pytest.mark.parametrize("key", ["../../escape", "/etc/passwd", "a/b", "", "\0", "ünïcödé" * 500])
def test_key_of_any_text_stays_in_its_folder(store: ArtifactStore, key: str) -> None:
    ref = store.put_bytes(b"x")
    store.remember(key, ref)
    assert store.recall(key) == ref
    files = {path for path in store.root.parent.rglob("*") if path.is_file()}
    assert all(store.root in path.parents for path in files)


@pytest.mark.parametrize(
    "ref",
    [
        "sha256:../../../../etc/passwd",
        "sha256:" + "0" * 63 + "/",
        "sha256:" + "0" * 64 + "\n",
        "sha256:" + "A" * 64,
        "SHA256:" + "0" * 64,
        " sha256:" + "0" * 64,
        "md5:" + "0" * 64,
    ],
)
def test_only_the_one_form_of_a_reference_is_taken(store: ArtifactStore, ref: str) -> None:
    for ask in (store.get_bytes, store.get_array, store.__contains__):
        with pytest.raises(InvalidInput, match="no artifact reference"):
            ask(ref)


def test_bucket_is_refused_as_a_root() -> None:
    with pytest.raises(BadSetting, match="is no local folder"):
        ArtifactStore("s3://bucket/artifacts")


def make_old(store: ArtifactStore) -> float:
    """Everything was stored long ago; a moment after that."""
    for path in store.root.rglob("*"):
        if path.is_file():
            os.utime(path, (1000.0, 1000.0))
    return 2000.0


def test_contents_and_names_are_listed_and_removed(store: ArtifactStore) -> None:
    ref = store.put_bytes(b"picture")
    store.remember("key", ref)
    before = make_old(store)
    (contents,) = store.list_contents()
    (name,) = store.list_names()
    assert (contents.name, contents.num_bytes, contents.renewed_at) == (ref, 7, 1000.0)
    assert store.read_name(name.name) == ref
    assert store.read_start(ref, 4) == b"pict"
    assert store.remove(contents, before)
    assert store.recall("key") is None
    assert not store.remove(contents, before)  # it is gone
    with pytest.raises(NotFound):
        store.read_start(ref, 4)
    assert store.remove(name, before)
    assert store.read_name(name.name) is None
    assert num_files(store) == 0


@pytest.mark.parametrize("how", ["put_bytes", "put_file", "recall", "renew"])
def test_contents_stay_when_they_were_used_since(
    store: ArtifactStore, tmp_path: Path, how: str
) -> None:
    ref = store.put_bytes(b"picture")
    store.remember("key", ref)
    before = make_old(store)
    (contents,) = store.list_contents()
    if how == "put_bytes":
        store.put_bytes(b"picture")
    elif how == "put_file":
        (tmp_path / "file").write_bytes(b"picture")
        store.put_file(tmp_path / "file")
    elif how == "recall":
        assert store.recall("key") == ref
        (name,) = store.list_names()
        assert not store.remove(name, before)
    else:
        assert store.renew(ref)
    assert not store.remove(contents, before)
    assert store.get_bytes(ref) == b"picture"


def test_contents_stay_when_they_are_used_while_they_are_removed(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = store.put_bytes(b"picture")
    before = make_old(store)
    (contents,) = store.list_contents()
    rename = Path.rename

    def use_first(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        assert store.renew(ref)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", use_first)
    assert not store.remove(contents, before)
    assert store.get_bytes(ref) == b"picture"


def test_nothing_is_renewed_that_is_not_there(store: ArtifactStore) -> None:
    assert not store.renew("sha256:" + "0" * 64)
