"""Freezing probe sets: what is skipped and counted, how it is split, what stays private."""

from __future__ import annotations

import io
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from unit.activations.conftest import Indexer, draw, write_pictures

from dnd import images
from dnd.artifacts import ArtifactStore
from dnd.errors import EmptyProbeSet, NotFound, Unavailable, UnknownName
from dnd.images import decode_image, encode_png
from dnd.manifest import Manifest
from dnd_services.activations import probes
from dnd_services.activations.probes import ProbeImages, freeze_probe_set
from dnd_services.activations.registry import Spec
from dnd_services.activations.sources import SOURCES, Entry, SourceFile
from dnd_services.activations.sources.folder import ImageFolder


def save_bytes(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


GOOD = {
    "cmyk.jpg": save_bytes(draw(1).convert("CMYK"), "JPEG"),
    "grey16.png": save_bytes(
        Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 257), "PNG"
    ),
    "animated.webp": save_bytes(draw(2), "WEBP", save_all=True, append_images=[draw(3)]),
    "animated.png": save_bytes(draw(2), "PNG", save_all=True, append_images=[draw(3)]),
    "one-pixel.png": save_bytes(Image.new("RGB", (1, 1), "red"), "PNG"),
    "alpha.png": save_bytes(draw(4).convert("RGBA"), "PNG"),
    "palette.png": save_bytes(draw(5).convert("P"), "PNG"),
    "no extension": save_bytes(draw(6), "JPEG"),
    "names/ünïcödé.png": save_bytes(draw(7), "PNG"),
}
WHOLE = save_bytes(draw(8), "PNG")
BAD = {
    "bomb.png": save_bytes(Image.new("1", (9000, 9000)), "PNG"),
    "corrupt.png": WHOLE[:60] + bytes(40) + WHOLE[100:],
    "empty.png": b"",
    "picture.gif": save_bytes(draw(9), "GIF"),
    "text.png": b"not a picture at all\n" * 10,
    "truncated.jpg": save_bytes(draw(10), "JPEG")[:-200],
    "truncated.png": WHOLE[: len(WHOLE) // 2],
}


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def test_bad_files_among_good_ones_are_skipped_counted_and_explained(
    tmp_path: Path, indexer: Indexer
) -> None:
    folder = write_files(tmp_path / "mixed", GOOD | BAD)
    (folder / "link.png").symlink_to(folder / "alpha.png")
    os.mkfifo(folder / "pipe.png")
    probe = indexer.freeze(folder, judge_fraction=0.0)
    assert (probe.num_images, probe.num_skipped) == (len(GOOD), len(BAD) + 2)
    assert len(probe.skipped_reasons) == probe.num_skipped
    reasons = "\n".join(probe.skipped_reasons)
    assert "9000 x 9000 pixels" in reasons
    assert "0 bytes" in reasons
    assert reasons.count("link or special file") == 2
    assert not any(name in reasons for name in BAD)

    found = ProbeImages(probe.manifest_ref, indexer.store)
    read = {found.read(number) for number in range(probe.num_images)}
    assert read == set(GOOD.values())
    assert all(decode_image(data).mode == "RGB" for data in read)


def test_file_above_the_byte_cap_is_not_even_read(
    tmp_path: Path, indexer: Indexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_pictures(tmp_path / "large", range(2))
    with open(folder / "sparse.png", "wb") as file:
        file.truncate(images.MAX_BYTES + 1)
    seen: list[int] = []
    monkeypatch.setattr(probes, "decode_image", lambda data: seen.append(len(data)))
    probe = indexer.freeze(folder, judge_fraction=0.0)
    assert max(seen) < 10**6
    assert (probe.num_images, probe.num_skipped) == (2, 1)
    assert f"expected at most {images.MAX_BYTES}" in probe.skipped_reasons[0]


def test_reasons_stop_at_the_limit_and_the_count_goes_on(tmp_path: Path, indexer: Indexer) -> None:
    files = {f"{number:03}.png": b"text" for number in range(30)}
    probe = indexer.freeze(
        write_files(tmp_path / "many", files | {"x.png": WHOLE}), judge_fraction=0.0
    )
    assert (probe.num_skipped, len(probe.skipped_reasons)) == (30, probes.MAX_REASONS)
    assert probe.skipped_reasons[1].startswith("Image 2 in sorted order")


def test_set_without_one_readable_image_says_so_and_why(tmp_path: Path, indexer: Indexer) -> None:
    folder = write_files(tmp_path / "bad", BAD)
    with pytest.raises(EmptyProbeSet, match=r"7 files and not one readable.*9000 x 9000"):
        indexer.freeze(folder)


def test_empty_folder_is_an_empty_probe_set(tmp_path: Path, indexer: Indexer) -> None:
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    (tmp_path / "empty" / ".hidden.png").write_bytes(WHOLE)
    with pytest.raises(EmptyProbeSet, match="has 0 files and not one readable"):
        indexer.freeze(tmp_path / "empty")


def test_missing_folder_is_an_unknown_name(tmp_path: Path, indexer: Indexer) -> None:
    with pytest.raises(UnknownName, match="no folder"):
        indexer.freeze(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(WHOLE)
    with pytest.raises(UnknownName, match="no folder"):
        indexer.freeze(tmp_path / "file")


def test_set_that_falls_wholly_into_the_judge_half_is_refused(
    tmp_path: Path, indexer: Indexer
) -> None:
    folder = write_pictures(tmp_path / "one", [0])
    with pytest.raises(EmptyProbeSet, match=r"judge half.*judge_fraction below 0\.999999"):
        indexer.freeze(folder, judge_fraction=0.999999)


def test_split_follows_contents_and_not_names_folders_or_company(
    tmp_path: Path, indexer: Indexer
) -> None:
    one = write_pictures(tmp_path / "one", range(40))
    other = tmp_path / "other"
    for number, path in enumerate(sorted(one.iterdir())):
        target = other / f"class{number % 3}" / f"{900 - number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    probe = indexer.freeze(one)
    assert indexer.freeze(other).manifest_ref == probe.manifest_ref

    manifest = Manifest.load(indexer.store, probe.manifest_ref)
    assert 0 < len(manifest.judge_indices()) < 20
    assert probe.num_select == len(manifest.select_indices())
    more = indexer.freeze(one, write_pictures(tmp_path / "more", range(40, 50)))
    larger = Manifest.load(indexer.store, more.manifest_ref)
    half = dict(zip(larger.refs(), larger.judge, strict=True))
    assert [half[ref] for ref in manifest.refs()] == manifest.judge.tolist()


def test_union_counts_equal_images_once_in_any_order(tmp_path: Path, indexer: Indexer) -> None:
    one = write_pictures(tmp_path / "one", range(8))
    other = write_pictures(tmp_path / "other", range(5, 12))
    probe = indexer.freeze(one, other)
    assert probe.num_images == 12
    assert indexer.freeze(other, one) == probe
    found = ProbeImages(probe.manifest_ref, indexer.store)
    assert {found.read(n) for n in range(12)} == {encoded(path) for path in every(one, other)}


def every(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.iterdir()]


def encoded(path: Path) -> bytes:
    return path.read_bytes()


def test_bad_file_in_one_part_of_a_union_does_not_spoil_the_other(
    tmp_path: Path, indexer: Indexer
) -> None:
    good = write_pictures(tmp_path / "good", range(5))
    bad = write_files(tmp_path / "bad", BAD)
    probe = indexer.freeze(good, bad)
    assert (probe.num_images, probe.num_skipped) == (5, len(BAD))


def test_unchanged_folder_is_not_read_again(
    tmp_path: Path, indexer: Indexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_pictures(tmp_path / "few", range(4))
    first = indexer.freeze(folder)
    num_read = 0
    read = ImageFolder.read

    def count(self: ImageFolder, key: str) -> bytes:
        nonlocal num_read
        num_read += 1
        return read(self, key)

    monkeypatch.setattr(ImageFolder, "read", count)
    assert indexer.freeze(folder) == first
    assert num_read == 0
    other_split = indexer.freeze(folder, judge_fraction=0.5)
    assert num_read == 0
    assert other_split.manifest_ref != first.manifest_ref

    (folder / "secretname002.png").write_bytes(encode_png(draw(50)))
    assert indexer.freeze(folder).manifest_ref != first.manifest_ref
    assert num_read == 4


def test_file_names_reach_nothing_that_other_services_are_given(
    tmp_path: Path, indexer: Indexer
) -> None:
    folder = write_pictures(tmp_path / "private", range(4))
    (folder / "secretname-broken.png").write_bytes(b"x")
    probe = indexer.freeze(folder)
    assert "secretname" not in repr(probe)
    assert b"secretname" not in indexer.store.get_bytes(probe.manifest_ref)


def test_images_are_read_from_the_store_once_they_are_there(
    tmp_path: Path, indexer: Indexer
) -> None:
    folder = write_pictures(tmp_path / "few", range(3))
    ref = indexer.freeze(folder).manifest_ref
    before = [ProbeImages(ref, indexer.store).read(n) for n in range(3)]
    shutil.rmtree(folder)
    assert [ProbeImages(ref, indexer.store).read(n) for n in range(3)] == before


def test_manifest_from_elsewhere_without_its_images_is_not_found(
    tmp_path: Path, indexer: Indexer
) -> None:
    ref = indexer.freeze(write_pictures(tmp_path / "few", range(3))).manifest_ref
    elsewhere = ArtifactStore(tmp_path / "elsewhere")
    elsewhere.put_bytes(indexer.store.get_bytes(ref))
    with pytest.raises(NotFound, match="nothing says where it came from"):
        ProbeImages(ref, elsewhere).read(0)


def test_reading_ends_when_the_server_shuts_down(
    tmp_path: Path, store: ArtifactStore, pool: ThreadPoolExecutor
) -> None:
    stopping = threading.Event()
    stopping.set()
    folder = write_pictures(tmp_path / "few", range(3))
    with pytest.raises(Unavailable, match="shutting down"):
        freeze_probe_set([Spec("imagefolder", str(folder))], 0.2, store, pool, stopping)


def test_new_kind_of_source_is_one_entry_in_the_table(
    indexer: Indexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Drawn:
        """As docs/probes.md describes it."""

        def list_files(self, location: str) -> object:
            return iter([SourceFile(location, stamp="1")])

        def list_entries(self, file: SourceFile) -> object:
            return (Entry(f"{file.key}/{number}") for number in range(int(file.key)))

        def read(self, key: str) -> bytes:
            return encode_png(draw(int(key.split("/")[1])))

    monkeypatch.setitem(SOURCES, "drawn", Drawn())
    probe = freeze_probe_set(
        [Spec("drawn", "6")], 0.2, indexer.store, indexer.pool, indexer.stopping
    )
    assert probe.num_images == 6
    assert decode_image(ProbeImages(probe.manifest_ref, indexer.store).read(3)).size == (44, 40)
