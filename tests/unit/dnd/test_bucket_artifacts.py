"""The artifact store in a bucket: a real S3 server, asked as S3 and as Google."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from buckets import S3Server, run_gcs, run_s3

from dnd import bucket_artifacts, buckets
from dnd.artifacts import ArtifactStore, Stored
from dnd.bucket_artifacts import open_artifacts
from dnd.errors import BadSetting, InvalidInput, NotFound, StorageRefused, Unavailable


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with run_s3(tmp_path_factory.mktemp("s3") / "buckets") as server:
        yield server


@pytest.fixture(scope="module")
def gcs(s3: S3Server) -> Iterator[dict[str, str]]:
    with run_gcs(s3.folder) as variables:
        yield variables


@pytest.fixture(autouse=True)
def _bucket(
    s3: S3Server, gcs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    (s3.folder / "bucket").mkdir(exist_ok=True)
    for name, value in {**s3.variables, **gcs}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setitem(buckets._RETRIES, "max_retries", 0)
    buckets.open_bucket.cache_clear()
    yield
    buckets.open_bucket.cache_clear()


@pytest.fixture(params=["s3", "gs"])
def store(request: pytest.FixtureRequest) -> ArtifactStore:
    name = request.node.name.partition("[")[0]
    return open_artifacts(f"{request.param}://bucket/{request.param}/{name}")


def set_age(monkeypatch: pytest.MonkeyPatch, age_s: float) -> None:
    """Everything so far was written so long ago."""
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + age_s)


def test_contents_arrays_files_and_names_come_back(store: ArtifactStore, tmp_path: Path) -> None:
    ref = store.put_bytes(b"picture")
    assert store.put_bytes(b"picture") == ref
    assert ref in store
    assert store.get_bytes(ref) == b"picture"
    assert store.read_start(ref, 3) == b"pic"
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    back = store.get_array(store.put_array(array))
    assert isinstance(back, np.memmap)
    np.testing.assert_array_equal(back, array)
    with store.drafts() as folder:
        (folder / "large").write_bytes(b"large")
        large = store.put_file(folder / "large")
    assert store.get_bytes(large) == b"large"
    assert store.recall("key") is None
    store.remember("key", ref)
    assert store.recall("key") == ref
    assert {one.name for one in store.list_contents()} >= {ref, large}
    (name,) = store.list_names()
    assert store.read_name(name.name) == ref


def test_another_process_sees_what_one_has_stored(store: ArtifactStore) -> None:
    url = store._url  # type: ignore[attr-defined]
    refs = [store.put_array(np.full(1000, number)) for number in range(3)]
    store.remember("key", refs[0])
    other = open_artifacts(url)
    assert other.recall("key") == refs[0]
    assert [int(other.get_array(ref)[999]) for ref in refs] == [0, 1, 2]
    with ThreadPoolExecutor(4) as pool:
        stored = list(pool.map(other.put_bytes, [b"same"] * 8))
    assert store.get_bytes(stored[0]) == b"same"


def test_missing_contents_are_not_found(store: ArtifactStore) -> None:
    ref = "sha256:" + "0" * 64
    assert ref not in store
    for ask in (store.get_bytes, store.get_array, lambda ref: store.read_start(ref, 1)):
        with pytest.raises(NotFound, match="has no sha256:0000"):
            ask(ref)
    with pytest.raises(InvalidInput, match="no artifact reference"):
        store.get_bytes("../../etc/passwd")


def test_damaged_contents_are_not_found_and_can_be_stored_again(store: ArtifactStore) -> None:
    array = np.arange(100.0)
    refs = [store.put_bytes(b"picture"), store.put_array(array)]
    for ref in refs:
        store._put(store._name(ref), b"pic")
    other = open_artifacts(store._url)  # type: ignore[attr-defined]
    for ask, ref in zip((other.get_bytes, other.get_array), refs, strict=True):
        with pytest.raises(NotFound, match="made again"):
            ask(ref)
        assert ref not in other
    assert store.put_bytes(b"picture") == refs[0]
    assert other.get_bytes(refs[0]) == b"picture"
    assert store.put_array(array) == refs[1]
    np.testing.assert_array_equal(other.get_array(refs[1]), array)
    text = store.put_bytes(b"text")
    with pytest.raises(InvalidInput, match="is no array"):
        store.get_array(text)


def test_garbage_goes_and_what_is_used_again_is_renewed(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = [
        store.put_bytes(text) for text in (b"garbage", b"stored again", b"recalled", b"renewed")
    ]
    store.remember("key", refs[2])
    set_age(monkeypatch, 2 * bucket_artifacts.RENEW_S)
    written: list[str] = []
    put = bucket_artifacts.obstore.put

    def count(bucket: object, name: str, data: object) -> object:
        written.append(name)
        return put(bucket, name, data)

    monkeypatch.setattr(bucket_artifacts.obstore, "put", count)
    assert store.put_bytes(b"stored again") == refs[1]
    assert store.recall("key") == refs[2]
    assert store.renew(refs[3])
    assert not store.renew("sha256:" + "0" * 64)
    key_name = store._key_name("key")
    assert written == [*map(store._name, refs[1:3]), key_name, store._name(refs[3])]
    ages = {one.name: one for one in store.list_contents()}
    assert not store.remove(ages[refs[0]], ages[refs[0]].renewed_at - 1)
    assert store.remove(ages[refs[0]], time.time())
    assert [ref in store for ref in refs] == [False, True, True, True]
    assert not store.remove(Stored(refs[0], 7, 0.0), time.time())
    assert store.remove(next(store.list_names()), time.time())
    assert store.recall("key") is None


def test_copies_of_arrays_are_bounded_and_stay_whole_while_they_are_mapped(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_artifacts, "CACHE_BYTES", 3 * 8128)
    refs = [store.put_array(np.full(1000, number)) for number in range(6)]
    arrays = [store.get_array(ref) for ref in refs]
    copies = [path for path in store.root.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in copies) <= 3 * 8128
    assert [int(array.sum()) for array in arrays] == [1000 * number for number in range(6)]
    assert int(store.get_array(refs[0])[0]) == 0


def test_copies_go_with_the_store() -> None:
    store = open_artifacts("s3://bucket/copies")
    root = store.root
    store.get_array(store.put_array(np.arange(10)))
    assert any(path.is_file() for path in root.rglob("*"))
    del store
    gc.collect()
    assert not root.exists()


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_large_file_is_stored_in_parts(scheme: str, s3: S3Server, tmp_path: Path) -> None:
    store = open_artifacts(f"{scheme}://bucket/{scheme}-large")
    data = os.urandom(12 * 2**20)
    (tmp_path / "large").write_bytes(data)
    ref = store.put_file(tmp_path / "large")
    assert open_artifacts(f"{scheme}://bucket/{scheme}-large").get_bytes(ref) == data
    path = s3.folder / "bucket" / f"{scheme}-large" / store._name(ref)
    assert path.stat().st_size == len(data)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://nowhere/artifacts", "no such bucket"),
        ("gs://nowhere/artifacts", "no such bucket"),
        ("https://host/artifacts", "expected a folder, s3://"),
        ("ftp://host/artifacts", "no URL that can be read"),
        ("s3:///artifacts", "no URL that can be read"),
    ],
)
def test_unusable_bucket_is_a_bad_setting(url: str, message: str) -> None:
    with pytest.raises(BadSetting, match=f"DND_ARTIFACTS = '{url}': .*{message}"):
        open_artifacts(url)


def test_wrong_credentials_are_a_bad_setting_and_later_the_operators_trouble(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = open_artifacts("s3://bucket/x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    buckets.open_bucket.cache_clear()
    with pytest.raises(BadSetting, match=r"DND_ARTIFACTS = .*refuses access.*AWS_"):
        open_artifacts("s3://bucket/x")
    store._bucket = buckets.open_bucket("s3://bucket/x")  # type: ignore[attr-defined]
    with pytest.raises(StorageRefused, match="refuses access"):
        store.put_bytes(b"x")


def test_bucket_that_has_gone_or_cannot_be_reached_stops_everybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = open_artifacts("s3://bucket/x")
    store._bucket = buckets.open_bucket("s3://gone/x")  # type: ignore[attr-defined]
    with pytest.raises(StorageRefused, match="no such bucket"):
        store.put_bytes(b"x")
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(Unavailable, match="s3://other/x cannot be read"):
        open_artifacts("s3://other/x")


def test_folder_is_opened_as_before(tmp_path: Path) -> None:
    assert type(open_artifacts(str(tmp_path / "store"))) is ArtifactStore
