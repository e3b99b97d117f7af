"""The explorer as a folder: complete, escaped, and every link in it leads somewhere."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from result_samples import LAYERS, Sample, make_sample

from dnd.errors import FailedPrecondition
from dnd.explorer import folder
from dnd.explorer.folder import write_explorer
from dnd.jobs import UnitState
from dnd.report.tables import write_tables

EVIL = '</script><script>alert(1)</script>" onmouseover="alert(2)'


class Document(HTMLParser):
    """Addresses that a page names, and what in it could run."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.inline: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script" and "src" not in dict(attrs):
            self.inline.append(tag)
        for name, value in attrs:
            if name in ("href", "src", "action"):
                self.addresses.append(value or "")
            elif name.startswith("on") or name == "style":
                self.inline.append(name)


def write(sample: Sample, out: Path) -> Path:
    out.mkdir(exist_ok=True)
    labels = write_tables(sample.job, sample.units, LAYERS, out)
    return write_explorer(sample.job, labels, sample.fetch, out / "explorer").parent


def test_every_address_in_the_folder_leads_to_a_file_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "UNITS_ON_A_PAGE", 4)
    states = {3: UnitState.DEAD, 4: UnitState.FAILED, 5: UnitState.PENDING}
    found = write(make_sample(9, states=states), tmp_path)
    pages = sorted(found.rglob("*.html"))
    assert len(pages) == 2 + 9 + 5 * 3
    for page in pages:
        document = Document(page.read_text())
        assert document.inline == []
        assert len(document.addresses) > 5
        for address in document.addresses:
            if address.startswith("#"):
                continue
            assert not re.match(r"[a-z]+:|/", address), (page, address)
            target = (page.parent / unquote(address)).resolve()
            assert target.is_file(), (page, address)
            assert target.is_relative_to(found.resolve())


def test_labels_and_captions_are_escaped_in_pages_and_data(tmp_path: Path) -> None:
    found = write(make_sample(2, label=EVIL, caption=EVIL), tmp_path)
    for page in found.rglob("*.html"):
        assert "<script>alert" not in page.read_text()
    assert "&lt;script&gt;alert" in (found / "unit" / "0-0.html").read_text()
    data = (found / "units.js").read_text()
    rows = json.loads(data.removeprefix("window.units=").removesuffix(";\n"))
    assert [row[3] for row in rows] == [f"{EVIL} 0", f"{EVIL} 1"]


def test_units_are_listed_in_every_order(tmp_path: Path) -> None:
    states = {1: UnitState.UNCERTAIN, 2: UnitState.DEAD}
    found = write(make_sample(3, states=states), tmp_path)

    def listed(sort: str) -> list[int]:
        html = (found / "units" / f"0-{sort}-1.html").read_text()
        return [int(n) for n in re.findall(r'class="unitcard [a-z]+" href="../unit/0-(\d+)', html)]

    assert listed("unit") == [0, 1, 2]
    assert listed("percentile") == [0, 1, 2]
    assert listed("lowest") == [1, 0, 2]
    assert listed("label") == [0, 1, 2]


def test_folder_is_replaced_and_lacks_only_what_is_gone(tmp_path: Path) -> None:
    sample = make_sample(2)
    found = write(sample, tmp_path)
    (found / "stale.html").write_text("old")
    assert sample.units[0].record is not None
    gone = sample.units[0].record["candidates"][0]["images"][0]
    del sample.images[gone]
    again = write(sample, tmp_path)
    assert not (again / "stale.html").exists()
    assert "the picture is no longer stored" in (again / "unit" / "0-0.html").read_text()


def test_names_the_folder_when_it_cannot_be_written_to(tmp_path: Path) -> None:
    sample = make_sample(1)
    labels = write_tables(sample.job, sample.units, LAYERS, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedPrecondition, match=r"cannot be written to .*file"):
        write_explorer(sample.job, labels, sample.fetch, tmp_path / "file" / "explorer")
