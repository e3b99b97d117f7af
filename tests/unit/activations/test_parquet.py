"""Probe images from a column of Parquet files, and files without such a column."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from buckets import run_web
from unit.activations.conftest import Indexer, draw
from unit.activations.test_probes import BAD, GOOD

from dnd.errors import BadSetting, FailedPrecondition, InvalidInput, UnknownName
from dnd.images import encode_png
from dnd.manifest import Manifest
from dnd_services.activations.probes import ProbeImages, freeze_probe_set
from dnd_services.activations.registry import Spec
from dnd_services.activations.sources import SOURCES, parquet

PICTURES = [encode_png(draw(number)) for number in range(10)]


def write(path: Path, columns: dict[str, Any], rows_per_group: int = 4) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=rows_per_group)
    return path


def as_struct(pictures: list[bytes | None]) -> pa.Array:
    """As the library `datasets` writes images."""
    rows = [None if one is None else {"bytes": one, "path": "secretname.png"} for one in pictures]
    return pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def freeze(indexer: Indexer, location: object, judge_fraction: float = 0.2) -> Any:
    spec = Spec("parquet", str(location))
    return freeze_probe_set([spec], judge_fraction, indexer.store, indexer.pool, indexer.stopping)


def read_all(indexer: Indexer, probe: Any) -> set[bytes]:
    found = ProbeImages(probe.manifest_ref, indexer.store)
    return {found.read(number) for number in range(probe.num_images)}


def test_files_give_the_manifest_of_the_same_images_in_a_folder(
    tmp_path: Path, indexer: Indexer
) -> None:
    (tmp_path / "folder").mkdir()
    for number, picture in enumerate(PICTURES):
        (tmp_path / "folder" / f"{number}.png").write_bytes(picture)
    captions = [f"secretname {number}" for number in range(7)]
    write(tmp_path / "0.parquet", {"caption": captions, "image": as_struct(PICTURES[:7])})
    write(tmp_path / "1.parquet", {"label": [1] * 5, "image": pa.array(PICTURES[5:], "binary")})
    probe = freeze(indexer, tmp_path)
    assert probe.manifest_ref == indexer.freeze(tmp_path / "folder").manifest_ref
    assert (probe.num_images, probe.num_skipped) == (10, 0)
    assert "secretname" not in repr(probe)
    assert freeze(indexer, tmp_path / "{0..1}.parquet") == probe
    for path in tmp_path.glob("*.parquet"):
        path.unlink()
    assert read_all(indexer, probe) == set(PICTURES)


def test_bad_images_and_nulls_are_skipped_counted_and_explained(
    tmp_path: Path, indexer: Indexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [*GOOD.values(), None, *BAD.values(), None, bytes(300_000)]
    path = write(tmp_path / "a.parquet", {"image": as_struct(images)})
    monkeypatch.setattr(parquet, "MAX_BYTES", 200_000)
    probe = freeze(indexer, path, judge_fraction=0.0)
    assert (probe.num_images, probe.num_skipped) == (len(GOOD), len(BAD) + 3)
    reasons = "\n".join(probe.skipped_reasons)
    assert reasons.count("image.bytes is null") == 2
    assert "300000 bytes: expected at most 200000" in reasons
    assert read_all(indexer, probe) == set(GOOD.values())


@pytest.mark.parametrize("kind", ["binary", "large_binary", "struct"])
@pytest.mark.parametrize("compression", ["snappy", "zstd"])
def test_image_that_the_store_has_lost_is_read_from_its_row_again(
    tmp_path: Path, indexer: Indexer, kind: str, compression: str
) -> None:
    column = as_struct(PICTURES) if kind == "struct" else pa.array(PICTURES, kind)
    table = pa.table({"n": range(10), "picture": column})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=4, compression=compression)
    probe = freeze(indexer, tmp_path / "a.parquet")
    for ref in Manifest.load(indexer.store, probe.manifest_ref).refs():
        (indexer.store.root / "blobs" / ref[7:9] / ref[7:]).unlink()
    assert read_all(indexer, probe) == set(PICTURES)


def test_file_that_has_changed_is_noticed(tmp_path: Path, indexer: Indexer) -> None:
    path = write(tmp_path / "a.parquet", {"image": PICTURES})
    probe = freeze(indexer, path)
    for change in (
        lambda: write(path, {"image": PICTURES[::-1]}),
        lambda: write(path, {"image": PICTURES[:1]}),
        lambda: write(path, {"other": PICTURES}),
        lambda: path.write_bytes(b"text"),
        lambda: path.unlink(),
    ):
        change()
        for ref in Manifest.load(indexer.store, probe.manifest_ref).refs():
            (indexer.store.root / "blobs" / ref[7:9] / ref[7:]).unlink(missing_ok=True)
        with pytest.raises(FailedPrecondition, match="has gone or changed"):
            read_all(indexer, probe)


def test_column_is_the_only_one_with_bytes_or_the_one_that_is_named(
    tmp_path: Path, indexer: Indexer
) -> None:
    path = write(tmp_path / "a.parquet", {"n": range(5), "scan": PICTURES[:5]})
    assert read_all(indexer, freeze(indexer, path)) == set(PICTURES[:5])
    columns = {"mask": as_struct(PICTURES[:5]), "photo": PICTURES[5:]}
    path = write(tmp_path / "b.parquet", columns)
    with pytest.raises(InvalidInput, match=r"several columns, mask, photo: .*parquet#mask'"):
        freeze(indexer, path)
    assert read_all(indexer, freeze(indexer, f"{path}#photo")) == set(PICTURES[5:])
    assert read_all(indexer, freeze(indexer, f"{path}#mask")) == set(PICTURES[:5])
    assert freeze(indexer, f"{path}#mask.bytes") == freeze(indexer, f"{path}#mask")
    path = write(tmp_path / "c.parquet", columns | {"image": PICTURES[:5]})
    assert read_all(indexer, freeze(indexer, path)) == set(PICTURES[:5])


def test_file_without_an_image_column_names_the_columns_it_has(
    tmp_path: Path, indexer: Indexer
) -> None:
    path = write(tmp_path / "a.parquet", {"caption": ["a"], "label": [1]})
    with pytest.raises(
        InvalidInput, match=r"no column with bytes .*caption \(string\), label \(in"
    ):
        freeze(indexer, path)
    with pytest.raises(InvalidInput, match=r"column 'caption' is string: expected bytes"):
        freeze(indexer, f"{path}#caption")
    with pytest.raises(InvalidInput, match=r"no column 'captoin'\. Did you mean 'caption'"):
        freeze(indexer, f"{path}#captoin")


def test_damaged_file_is_refused_by_name(tmp_path: Path, indexer: Indexer) -> None:
    path = write(tmp_path / "a.parquet", {"image": PICTURES})
    whole = path.read_bytes()
    middle = whole[:2000] + bytes(len(whole) - 4000) + whole[-2000:]
    for data in (b"", b"text", whole[:-100], whole[: len(whole) // 2], middle):
        path.write_bytes(data)
        with pytest.raises(InvalidInput, match=f"{path} is no Parquet file, or damaged"):
            freeze(indexer, path)
    with pytest.raises(UnknownName, match=r"no \.parquet file"):
        freeze(indexer, tmp_path / "b*.parquet")


def test_file_on_a_web_server_is_read_in_parts(tmp_path: Path, indexer: Indexer) -> None:
    path = write(tmp_path / "a.parquet", {"image": PICTURES, "other": ["x" * 10_000] * 10})
    with run_web() as web:
        web.files["a.parquet"] = path.read_bytes()
        probe = freeze(indexer, f"{web.url}/a.parquet")
        assert all(asked for _, asked in web.requests)
    assert probe == freeze(indexer, path)
    assert read_all(indexer, probe) == set(PICTURES)


def test_missing_package_names_the_extra(
    tmp_path: Path, indexer: Indexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.parquet", {"image": PICTURES})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BadSetting, match=r"describe-and-dissect\[parquet\]"):
        freeze(indexer, path)


def test_row_groups_are_read_in_pieces(tmp_path: Path) -> None:
    """A row group of 16 MB: reading it holds a small part of that."""
    noise = [bytes([number]) * 2**17 for number in range(128)]
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"image": noise}),
        path,
        row_group_size=128,
        compression="none",
        use_dictionary=False,
        write_batch_size=1,  # the writer looks at the size of a page after so many rows
    )
    del noise
    before = pa.total_allocated_bytes()
    source = SOURCES["parquet"]
    (file,) = source.list_files(str(path))
    held = [pa.total_allocated_bytes() - before for _ in source.list_entries(file)]
    assert len(held) == 128
    assert max(held) < 8 * 2**20
