"""The explorer as a folder: complete, escaped, and every link in it leads somewhere."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from result_samples import LAYERS, Sample, make_sample

from dnd.errors import FailedPrecondition
from dnd.explorer import folder
from dnd.explorer.folder import write_explorer
from dnd.jobs import JobState, UnitState
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
    states = {0: UnitState.DEAD, 1: UnitState.UNCERTAIN}
    found = write(make_sample(3, states=states), tmp_path)

    def listed(sort: str) -> list[int]:
        html = (found / "units" / f"0-{sort}-1.html").read_text()
        return [int(n) for n in re.findall(r'class="unitcard [a-z]+" href="../unit/0-(\d+)', html)]

    assert listed("unit") == [0, 1, 2]
    assert listed("percentile") == [2, 1, 0]
    assert listed("lowest") == [1, 2, 0]
    assert listed("auc") == [1, 2, 0]
    assert listed("label") == [1, 2, 0]


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


def test_picture_is_in_every_size_that_units_show_it_in(tmp_path: Path) -> None:
    sample = make_sample(2)
    first, second = (unit.record for unit in sample.units)
    assert first is not None
    assert second is not None
    shared = first["exemplars"][0]["image"]  # of the one unit an exemplar, of the other in a decile
    second["deciles"][0]["image"] = shared
    found = write(sample, tmp_path)
    for page in ("0-0", "0-1"):
        assert "no longer stored" not in (found / "unit" / f"{page}.html").read_text()
    assert len(list((found / "images").glob(f"{shared.replace(':', '')}-*.webp"))) == 2


def test_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "explorer" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(FailedPrecondition, match="explorer is not a folder of the explorer"):
        write(make_sample(1), tmp_path)
    assert mine.read_text() == "mine"


def test_overview_of_a_job_that_runs_says_nothing_of_how_long_and_counts_all_failures(
    tmp_path: Path,
) -> None:
    sample = make_sample(21, states=dict.fromkeys(range(21), UnitState.FAILED))
    counts = {UnitState.FAILED: 21}
    sample.job = replace(sample.job, state=JobState.RUNNING, ended_at_s=0.0, units=counts)
    page = (write(sample, tmp_path) / "index.html").read_text()
    assert "Running for" not in page
    assert "The first of 21 failed units." in page


def test_names_the_folder_when_it_cannot_be_written_to(tmp_path: Path) -> None:
    sample = make_sample(1)
    labels = write_tables(sample.job, sample.units, LAYERS, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedPrecondition, match=r"cannot be written to .*file"):
        write_explorer(sample.job, labels, sample.fetch, tmp_path / "file" / "explorer")
