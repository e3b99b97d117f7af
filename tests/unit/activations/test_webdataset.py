"""Probe images from tar shards: here, on a web server and in a bucket; and shards that are bad."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from buckets import S3Server, WebServer, run_gcs, run_s3, run_web
from unit.activations.conftest import Indexer, draw
from unit.activations.test_probes import BAD, GOOD

from dnd import buckets
from dnd.errors import (
    EmptyProbeSet,
    FailedPrecondition,
    InvalidInput,
    StorageRefused,
    Unavailable,
    UnknownName,
)
from dnd.images import encode_png
from dnd.manifest import Manifest
from dnd_services.activations.probes import ProbeImages, freeze_probe_set
from dnd_services.activations.registry import Spec, load_registry
from dnd_services.activations.sources import SOURCES, webdataset
from dnd_services.activations.sources.shards import expand_braces


def pack(files: dict[str, bytes], **options: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def pictures(*numbers: int) -> dict[str, bytes]:
    """Samples of these numbers: a picture, a caption, a class."""
    found: dict[str, bytes] = {}
    for number in numbers:
        found[f"secretname{number:03d}.png"] = encode_png(draw(number))
        found[f"secretname{number:03d}.txt"] = b"secretname of a caption"
        found[f"secretname{number:03d}.cls"] = b"7"
    return found


def freeze(indexer: Indexer, *locations: object, judge_fraction: float = 0.2) -> Any:
    specs = [Spec("webdataset", str(location)) for location in locations]
    return freeze_probe_set(specs, judge_fraction, indexer.store, indexer.pool, indexer.stopping)


def read_all(indexer: Indexer, probe: Any) -> set[bytes]:
    found = ProbeImages(probe.manifest_ref, indexer.store)
    return {found.read(number) for number in range(probe.num_images)}


def only_pictures(files: dict[str, bytes]) -> set[bytes]:
    return {data for name, data in files.items() if name.endswith(".png")}


# --- On this machine ------------------------------------------------------------------------------


def test_shards_give_the_manifest_of_the_same_images_in_a_folder(
    tmp_path: Path, indexer: Indexer
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.png").write_bytes(encode_png(draw(number)))
    (tmp_path / "a-000.tar").write_bytes(pack(pictures(*range(5))))
    (tmp_path / "a-001.tar").write_bytes(pack(pictures(*range(4, 12)), format=tarfile.PAX_FORMAT))
    probe = freeze(indexer, tmp_path / "a-{000..001}.tar")
    assert probe.manifest_ref == indexer.freeze(folder).manifest_ref
    assert (probe.num_images, probe.num_skipped) == (12, 0)
    for location in (tmp_path, f"{tmp_path}/a-*.tar", f"{tmp_path}/a-00{{0,1}}.tar"):
        assert freeze(indexer, location) == probe


def test_bad_members_are_skipped_counted_and_explained(tmp_path: Path, indexer: Indexer) -> None:
    files = {
        name if name.endswith((".png", ".jpg", ".webp", ".gif")) else f"{name}.jpeg": data
        for name, data in (GOOD | BAD).items()
    }
    files |= {"note.txt": b"a caption", "._apple.png": b"hidden"}
    (tmp_path / "a.tar").write_bytes(pack(files))
    probe = freeze(indexer, tmp_path / "a.tar", judge_fraction=0.0)
    assert (probe.num_images, probe.num_skipped) == (len(GOOD), len(BAD))
    assert "9000 x 9000 pixels" in "".join(probe.skipped_reasons)
    assert read_all(indexer, probe) == set(GOOD.values())


def test_member_above_the_byte_cap_is_skipped_without_being_held(
    tmp_path: Path, indexer: Indexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.tar").write_bytes(pack({"large.png": bytes(300_000)} | pictures(1)))
    monkeypatch.setattr(webdataset, "MAX_BYTES", 200_000)
    probe = freeze(indexer, tmp_path / "a.tar", judge_fraction=0.0)
    assert (probe.num_images, probe.num_skipped) == (1, 1)
    assert "300000 bytes: expected at most 200000" in probe.skipped_reasons[0]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_images_are_found_again_by_their_place_in_every_kind_of_tar(
    tmp_path: Path, indexer: Indexer, kind: int
) -> None:
    files = {
        f"{'deep/' * 30}ünïcödé {name}" if kind else name: data
        for name, data in pictures(1, 2, 3).items()
    }
    (tmp_path / "a.tar").write_bytes(pack(files, format=kind))
    probe = freeze(indexer, tmp_path / "a.tar")
    assert not any(
        ref in indexer.store for ref in Manifest.load(indexer.store, probe.manifest_ref).refs()
    )
    assert read_all(indexer, probe) == only_pictures(files)


def test_links_and_folders_in_a_shard_are_passed_over(tmp_path: Path, indexer: Indexer) -> None:
    folder = tmp_path / "in" / "deeper"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(encode_png(draw(1)))
    (folder / "b.png").symlink_to(folder / "a.png")
    (folder / "c.png").hardlink_to(folder / "a.png")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "in", "in")
    probe = freeze(indexer, tmp_path / "a.tar", judge_fraction=0.0)
    assert (probe.num_images, probe.num_skipped) == (1, 0)


def test_field_chooses_among_the_images_of_a_sample(tmp_path: Path, indexer: Indexer) -> None:
    masks = {f"{n}.seg.png": encode_png(draw(50 + n)) for n in range(3)}
    photos = {f"{n}.png": encode_png(draw(n)) for n in range(3)}
    (tmp_path / "a.tar").write_bytes(pack(masks | photos))
    assert freeze(indexer, tmp_path / "a.tar").num_images == 6
    chosen = freeze(indexer, f"{tmp_path}/a.tar#png")
    assert read_all(indexer, chosen) == set(photos.values())
    assert read_all(indexer, freeze(indexer, f"{tmp_path}/a.tar#seg.png")) == set(masks.values())
    with pytest.raises(InvalidInput, match=r"no member that ends in \.jpg.*\.seg\.png, \.png"):
        freeze(indexer, f"{tmp_path}/a.tar#jpg")


def test_unchanged_shards_are_not_read_again_and_a_changed_one_is_noticed(
    tmp_path: Path, indexer: Indexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(pack(pictures(1, 2)))
    first = freeze(indexer, path)
    opened: list[str] = []
    open_file = webdataset.open_file

    def count(location: str) -> Any:
        opened.append(location)
        return open_file(location)

    monkeypatch.setattr(webdataset, "open_file", count)
    assert freeze(indexer, path) == first
    assert opened == []
    path.write_bytes(pack(pictures(3, 4)))
    with pytest.raises(FailedPrecondition, match="has gone or changed"):
        read_all(indexer, first)
    assert freeze(indexer, path).manifest_ref != first.manifest_ref
    assert opened == [str(path)]
    path.unlink()
    with pytest.raises(FailedPrecondition, match="has gone or changed"):
        read_all(indexer, first)


def test_names_of_members_reach_nothing_that_others_are_given(
    tmp_path: Path, indexer: Indexer
) -> None:
    files = pictures(1, 2) | {"secretname-bad.png": b"x"}
    (tmp_path / "a.tar").write_bytes(pack(files))
    probe = freeze(indexer, tmp_path / "a.tar")
    assert probe.num_skipped == 1
    assert "secretname" not in repr(probe)


# --- Shards that are bad --------------------------------------------------------------------------

WHOLE = pack(pictures(1, 2, 3))
SECOND = WHOLE.index(b"secretname002.png")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (WHOLE[: SECOND + 700], r"is cut off behind 4 members: 'secretname002.png' has \d+"),
        (WHOLE[: SECOND + 100], "is cut off behind 3 members: there is no end-of-archive"),
        (WHOLE[:SECOND], "is cut off behind 3 members: there is no end-of-archive"),
        (WHOLE[:SECOND] + b"\1" * 1024, "is damaged behind 3 members, at byte"),
        (b"", "is no tar archive: it has 0 bytes"),
        (b"text", "is no tar archive: it has 4 bytes"),
        (b"text" * 500, "is no tar archive"),
        (gzip.compress(WHOLE), r"is compressed \(gzip\)"),
        (pack({}), "has no member that ends in .jpg.*Endings that it has: none"),
        (pack({"a.txt": b"", "b.npy": b""}), r"has no member that ends in .*has: \.txt, \.npy"),
    ],
)
def test_bad_shard_is_refused_by_name(
    tmp_path: Path, indexer: Indexer, data: bytes, message: str
) -> None:
    (tmp_path / "good.tar").write_bytes(WHOLE)
    (tmp_path / "some.tar").write_bytes(data)
    with pytest.raises(InvalidInput, match=f"{tmp_path}/some.tar {message}"):
        freeze(indexer, tmp_path / "{good,some}.tar")


def header(**fields: object) -> bytes:
    info = tarfile.TarInfo("x")
    for name, value in fields.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header(type=tarfile.XHDTYPE, size=2**40), "a header has 1099511627776 bytes"),
        (header(type=tarfile.GNUTYPE_LONGNAME, size=2**21), "a header has 2097152 bytes"),
        (header(type=tarfile.XHDTYPE, size=9) + b"99 path=x".ljust(512, b"\0"), "makes no sense"),
        (header(type=tarfile.XHDTYPE, size=9) + b"9 size=-\n".ljust(512, b"\0") + header(), "'-'"),
        (header(type=tarfile.GNUTYPE_SPARSE, size=0), "sparse files"),
        (header(name="x.png", size=2**50), "is cut off"),
    ],
)
def test_tar_that_lies_is_refused_without_reading_more_than_there_is(
    tmp_path: Path, indexer: Indexer, data: bytes, message: str
) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(InvalidInput, match=message):
        freeze(indexer, tmp_path / "a.tar")


def test_shard_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, indexer: Indexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.tar").write_bytes(WHOLE)
    open_file = webdataset.open_file

    def change(location: str) -> Any:
        opened = open_file(location)
        (tmp_path / "a.tar").write_bytes(pack(pictures(*range(4, 9))))
        return opened

    monkeypatch.setattr(webdataset, "open_file", change)
    with pytest.raises(InvalidInput, match=r"changed while it was read|damaged|cut off"):
        freeze(indexer, tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("none.tar", "no '.*none.tar'"),
        ("a.tar/b.tar", "no '.*b.tar'"),
        ("none-*.tar", "no .tar file at"),
        ("empty", "no .tar file at"),
        ("{0..1}.tar", "no '.*1.tar'"),
    ],
)
def test_shard_that_is_not_there_is_an_unknown_name(
    tmp_path: Path, indexer: Indexer, location: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "0.tar").write_bytes(WHOLE)
    (tmp_path / "a.tar").write_bytes(WHOLE)
    with pytest.raises(UnknownName, match=message):
        freeze(indexer, tmp_path / location)


def test_set_of_bad_images_alone_is_empty(tmp_path: Path, indexer: Indexer) -> None:
    (tmp_path / "a.tar").write_bytes(pack({"a.png": b"x"}))
    with pytest.raises(EmptyProbeSet, match="1 files and not one readable"):
        freeze(indexer, tmp_path / "a.tar")


def test_braces_count_and_choose_as_in_a_shell() -> None:
    assert expand_braces("a-{008..010}.tar") == ["a-008.tar", "a-009.tar", "a-010.tar"]
    assert expand_braces("{9..10}") == ["9", "10"]
    assert expand_braces("{a,b}{0..1}") == ["a0", "a1", "b0", "b1"]
    assert expand_braces("plain") == ["plain"]


@pytest.mark.parametrize(
    "text", ["{3..1}", "{}", "{a}", "{a", "a}", "{0..9999999}", "{1..5000}" * 9]
)
def test_wrong_braces_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"expected|more than"):
        expand_braces(text)


def test_locations_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "probes.yaml").write_text(
        'probes: {here: "webdataset:s/{0..3}.tar", there: "webdataset:s3://b/x/{0..3}.tar"}'
    )
    found = load_registry(
        "", str(tmp_path / "probes.yaml"), model_schemes=(), probe_schemes=tuple(SOURCES)
    )
    assert found.find_probe("here") == (Spec("webdataset", f"{tmp_path}/s/{{0..3}}.tar"),)
    assert found.find_probe("there") == (Spec("webdataset", "s3://b/x/{0..3}.tar"),)


# --- On a web server ------------------------------------------------------------------------------


@pytest.fixture
def web() -> Iterator[WebServer]:
    with run_web() as server:
        yield server


def test_shard_on_a_web_server_is_read_in_order_and_kept(
    indexer: Indexer, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "BLOCK_BYTES", 8192)
    web.files["set/0.tar"] = pack(pictures(*range(20)))
    probe = freeze(indexer, f"{web.url}/set/{{0..0}}.tar")
    starts = [int(asked.removeprefix("bytes=").split("-")[0]) for _, asked in web.requests]
    assert len(starts) > 3
    assert starts == sorted(set(starts))
    web.files.clear()
    assert read_all(indexer, probe) == only_pictures(pictures(*range(20)))


def test_image_that_the_store_has_lost_is_fetched_by_its_place(
    indexer: Indexer, web: WebServer
) -> None:
    web.files["0.tar"] = pack(pictures(1, 2))
    probe = freeze(indexer, f"{web.url}/0.tar")
    web.requests.clear()
    (lost, _) = Manifest.load(indexer.store, probe.manifest_ref).refs()
    (indexer.store.root / "blobs" / lost[7:9] / lost[7:]).unlink()
    assert read_all(indexer, probe) == only_pictures(pictures(1, 2))
    ((_, asked),) = web.requests
    first, last = map(int, asked.removeprefix("bytes=").split("-"))
    assert web.files["0.tar"][first : last + 1] in only_pictures(pictures(1, 2))


def test_web_server_that_does_not_answer_as_expected_is_explained(
    indexer: Indexer, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(buckets._RETRIES, "max_retries", 0)
    buckets.open_bucket.cache_clear()
    with pytest.raises(UnknownName, match=r"no http://.*/0.tar: no such file"):
        freeze(indexer, f"{web.url}/0.tar")
    with pytest.raises(InvalidInput, match="does not list its files"):
        freeze(indexer, f"{web.url}/set/*.tar")
    web.files["0.tar"], web.ranges = WHOLE, False
    with pytest.raises(InvalidInput, match="range requests"):
        freeze(indexer, f"{web.url}/0.tar")
    with pytest.raises(Unavailable, match="cannot be read"):
        freeze(indexer, "http://127.0.0.1:1/0.tar")


@pytest.mark.parametrize("url", ["ftp://host/a.tar", "s3:///a.tar", "https://host/a.tar?key=1"])
def test_url_of_another_kind_is_refused(indexer: Indexer, url: str) -> None:
    with pytest.raises(InvalidInput, match=r"no URL that can be read|would come into logs"):
        freeze(indexer, url)


# --- In a bucket ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with run_s3(tmp_path_factory.mktemp("s3") / "buckets", mended=True) as server:
        yield server


@pytest.fixture(scope="module")
def gcs(s3_server: S3Server) -> Iterator[dict[str, str]]:
    with run_gcs(s3_server.folder, mended=True) as variables:
        yield variables


@pytest.fixture
def s3(
    s3_server: S3Server, gcs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[S3Server]:
    for name, value in {**s3_server.variables, **gcs}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(buckets._RETRIES, "max_retries", 0)
    buckets.open_bucket.cache_clear()
    yield s3_server
    buckets.open_bucket.cache_clear()


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_shards_in_a_bucket_give_the_manifest_of_those_here(
    scheme: str, tmp_path: Path, indexer: Indexer, s3: S3Server
) -> None:
    bucket = s3.folder / "probes" / f"{scheme}-set"
    bucket.mkdir(parents=True)
    for number in range(2):
        data = pack(pictures(*range(4 * number, 5 * number + 4)))
        for folder in (bucket, tmp_path):
            (folder / f"{number}.tar").write_bytes(data)
    (bucket / "note.txt").write_text("no shard")
    url = f"{scheme}://probes/{scheme}-set"
    probe = freeze(indexer, f"{url}/{{0..1}}.tar")
    assert probe == freeze(indexer, tmp_path)
    assert probe == freeze(indexer, f"{url}/") == freeze(indexer, f"{url}/*.tar")
    assert read_all(indexer, probe) == only_pictures(pictures(*range(9)))


def test_bucket_that_is_missing_or_refuses_is_explained(
    indexer: Indexer, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (s3.folder / "few").mkdir(exist_ok=True)
    for location in ("s3://nowhere/a.tar", "s3://nowhere/", "s3://few/a.tar", "s3://few/"):
        with pytest.raises(UnknownName, match=f"(?i)there is no .*{location}"):
            freeze(indexer, location)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    buckets.open_bucket.cache_clear()
    for location in ("s3://few/a.tar", "s3://few/"):
        with pytest.raises(StorageRefused, match=r"refuses access.*AWS_"):
            freeze(indexer, location)
