"""report.html: what it shows, what it refuses to run, how large it gets."""

from __future__ import annotations

import base64
import csv
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from result_samples import LAYERS, Sample, make_sample

from dnd.errors import NotFound
from dnd.jobs import UnitState
from dnd.report import page, pictures
from dnd.report.overview import choose_random
from dnd.report.page import write_report
from dnd.report.tables import LabelFile, write_tables

EVIL = '<script>alert(1)</script>" onmouseover="alert(2)'


class Document(HTMLParser):
    """Elements, ids, texts and everything that could load something."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.scripts = 0
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name == "href":
                self.links.append(value or "")
            elif name in ("src", "srcset", "data", "poster", "action"):
                self.loads.append(f"{tag} {name}={value}")
            elif name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data: str) -> None:
        self.text += data


def write(sample: Sample, folder: Path) -> tuple[LabelFile, str]:
    folder.mkdir(exist_ok=True)
    labels = write_tables(sample.job, sample.units, LAYERS, folder)
    path = write_report(sample.job, labels, sample.fetch, folder / "report.html")
    return labels, path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    states = {3: UnitState.DEAD, 4: UnitState.FAILED, 5: UnitState.TIED}
    return write(make_sample(8, states=states), tmp_path_factory.mktemp("report"))[1]


def test_shows_label_and_doubt_when_a_unit_is_uncertain(tmp_path: Path) -> None:
    sample = make_sample(3, states={1: UnitState.UNCERTAIN})
    assert sample.units[2].record is not None
    sample.units[2].record.update(  # type: ignore[attr-defined]
        percentile=None, calibration={"error": "There was <no> ink."}
    )
    _, html = write(sample, tmp_path)
    top = html[: html.index('id="u-head-0"')]
    assert "<b>1</b> uncertain" in top
    assert "Median percentile" in top
    sure, doubted, unknown = (
        html[html.index(f'id="u-head-{unit}"') :].split("</section>")[0] for unit in range(3)
    )
    assert "percentile <b>0.95</b>" in sure
    assert "excite it more" not in sure
    assert "red square 1" in doubted
    assert '<span class="pill uncertain">uncertain</span>' in doubted
    assert 'percentile <b>0.35</b><span class="gauge low"' in doubted
    assert "excite it more than drawings of its label: bus.</p>" in doubted
    assert "percentile <b>" not in unknown
    assert "No percentile: There was &lt;no&gt; ink." in unknown


def test_shows_all_evidence_when_a_unit_is_labelled(html: str) -> None:
    unit = html[html.index('id="u-head-0"') : html.index('id="u-head-1"')]
    assert "red square 0" in unit
    assert unit.count('class="tile"') == 10
    assert (
        unit.count("a red square on white") == 9 + 1
    )  # nine captions, and the words to find it by
    assert "no caption" in unit
    assert unit.count('class="crop" style="left:8.16%;top:16.33%') == 1
    assert unit.count('class="decile"') == 10
    assert unit.count('class="candidate"') == 3
    assert unit.count('class="drawing"') == 20
    assert "Left out: 7 drawings" in unit
    assert "TopK rank²" in unit
    assert unit.index(">red square 0</div>") < unit.index(">plain ground</div>")
    assert "5 calls, 900 tokens in, 40 out" in unit
    assert "shown as contrast: plain ground; plain ground.</p>" in unit


def add_facet(sample: Sample, label: str) -> None:
    """The first unit responds to images of another kind too."""
    record = sample.units[0].record
    assert record is not None
    first = {name: record[name] for name in ("labels", "exemplars", "candidates")}
    second = {
        "share": 0.375,
        "labels": [{"text": label, "score": 1.0, "candidate": 0}],
        "exemplars": [{**one, "caption": f"{label} there"} for one in record["exemplars"][:4]],
        "candidates": [{**record["candidates"][0], "text": label}],
    }
    record["facets"] = [{"share": 0.625, **first}, second]


def test_shows_each_kind_when_a_unit_responds_to_several(tmp_path: Path) -> None:
    sample = make_sample(2)
    add_facet(sample, "blue <disc>")
    labels, html = write(sample, tmp_path)
    unit = html[html.index('id="u-head-0"') : html.index('id="u-head-1"')]
    assert "and, of another kind, <b>blue &lt;disc&gt;</b>" in unit
    assert "38 % of what excites it is of another kind" in unit
    assert unit.count('class="facet"') == 1
    assert unit.count('class="tile"') == 10 + 4
    assert unit.count("blue &lt;disc&gt; there</span>") == 4
    assert unit.count('class="candidate"') == 3 + 1
    assert 'class="facet"' not in html[html.index('id="u-head-1"') :]
    with (tmp_path / "labels.csv").open(encoding="utf-8") as file:
        assert [row["other_kinds"] for row in csv.DictReader(file)] == ["blue <disc>", ""]
    assert len(labels.lines) == 2


def test_sorts_drawings_by_activation_when_it_shows_them(html: str) -> None:
    unit = html[html.index('id="u-head-0"') : html.index('id="u-head-1"')]
    first = unit[unit.index('class="candidate"') : unit.index(">plain ground</div>")]
    shown = [float(x) for x in re.findall(r"Drawing of red square 0, activation ([\d.]+)", first)]
    assert shown == sorted(shown, reverse=True)
    assert len(shown) == 10


def test_shows_failures_with_their_reason_when_there_are_some(html: str) -> None:
    document = Document(html)
    assert {"u-head-3", "u-head-4", "u-head-5"} <= set(document.ids)
    overview = html[: html.index('id="u-head-0"')]
    assert "The model answered nothing usable." in overview
    assert "#u-head-4" in overview
    assert "its activation is the same on every probe image" in document.text.lower()


def test_says_what_a_label_means_when_it_opens(html: str) -> None:
    top = Document(html[: html.index('id="u-head-0"')]).text
    assert "A label names what a unit prefers among the images of this probe set" in top
    assert "This profile runs on tiny models" in top
    assert "squares" in top


def test_warns_of_tiny_models_only_when_they_were_used(tmp_path: Path) -> None:
    sample = make_sample(1)
    other = replace(sample.job, spec=replace(sample.job.spec, profile="default"))
    assert "tiny models" not in write(replace(sample, job=other), tmp_path)[1]


def test_loads_nothing_and_runs_nothing_else_when_opened(html: str) -> None:
    document = Document(html)
    assert document.loads == []
    assert not [link for link in document.links if not link.startswith("#")]
    assert "url(" not in html.replace("url(data:image/webp;base64,", "")
    assert "@import" not in html
    script = html[html.index("<script>") + 8 : html.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src" in html
    assert f"script-src 'sha256-{digest}'" in html


def test_says_in_words_what_pictures_show(html: str) -> None:
    pictures_shown = re.findall(r'<span class="(?:pic|gone)[^>]*>', html)
    assert len(pictures_shown) > 100
    assert all('role="img" aria-label="' in one for one in pictures_shown)
    assert '<html lang="en">' in html
    assert html.count("<h1") == 1
    assert html.count('class="scroll"') == html.count('class="scroll" role="region" aria-label="')


def test_escapes_labels_and_captions_when_they_are_hostile(tmp_path: Path) -> None:
    sample = make_sample(2, caption=EVIL, label=EVIL, states={1: UnitState.FAILED})
    record = dict(sample.units[1].record or {}) | {"error": EVIL}
    sample.units[1] = replace(sample.units[1], record=record)
    document = Document(write(sample, tmp_path)[1])
    assert document.scripts == 1
    assert document.handlers == []
    assert "<script>alert(1)</script>" in document.text


def test_anchors_are_unique_and_linked_from_the_overview(html: str) -> None:
    document = Document(html)
    assert len(document.ids) == len(set(document.ids))
    fragments = {link.removeprefix("#") for link in document.links}
    assert fragments <= set(document.ids)
    assert {f"u-head-{n}" for n in range(8)} <= fragments  # all eight are among the random units


def test_draws_the_same_random_units_when_the_job_is_the_same(tmp_path: Path) -> None:
    sample = make_sample(60)
    labels, html = write(sample, tmp_path)
    chosen = choose_random(sample.job, labels.lines)
    again = choose_random(replace(sample.job, id="other", created_at_s=5.0), labels.lines)
    assert chosen == again
    assert len(chosen) == 12
    assert [line.unit for line in chosen] != list(range(12))
    assert [line.unit for line in chosen] == sorted(line.unit for line in chosen)
    other = choose_random(replace(sample.job, spec=replace(sample.job.spec, seed=1)), labels.lines)
    assert other != chosen
    assert html.count('class="card"') == 12


def test_embeds_a_picture_once_when_units_share_it(html: str) -> None:
    rules = re.findall(r"^\.(p[0-9a-f]+)\{background-image:(.*)\}$", html, re.MULTILINE)
    assert len({data for _, data in rules}) == len(rules)
    assert len({name for name, _ in rules}) == len(rules)
    assert html.count(f'class="pic {rules[0][0]}"') > 2


def test_marks_a_picture_that_is_gone_when_the_store_lacks_it(tmp_path: Path) -> None:
    sample = make_sample(1)
    gone = sample.units[0].record["exemplars"][0]["source"]  # type: ignore[index]
    del sample.images[gone]
    html = write(sample, tmp_path)[1]
    assert "the picture is no longer stored" in html
    assert html.count('class="tile"') == 10
    with pytest.raises(NotFound):
        sample.fetch([gone])


def test_splits_into_pages_when_there_are_more_than_two_hundred_units(tmp_path: Path) -> None:
    labels, html = write(make_sample(201, states={200: UnitState.DEAD}), tmp_path / "many")
    document = Document(html)
    pages = sorted((tmp_path / "many" / "report").iterdir())
    assert [path.name for path in pages] == ["page-0001.html", "page-0002.html", "page-0003.html"]
    ids = [id_ for path in pages for id_ in Document(path.read_text()).ids if id_.startswith("u-")]
    assert ids == [f"u-head-{n}" for n in range(201)]
    known = {
        f"report/{path.name}#{id_}" for path in pages for id_ in Document(path.read_text()).ids
    }
    assert {link for link in document.links if "#" in link} <= known
    assert "report/page-0003.html#u-head-200" in document.links
    assert "head 0 – 99" in html
    assert "../report.html" in pages[1].read_text()
    assert len(labels.lines) == 201


def test_removes_pages_when_a_shorter_report_takes_their_place(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "page-0001.html").write_text("old")
    write(make_sample(1), tmp_path)
    assert not (tmp_path / "report").exists()


def test_lowers_the_quality_when_a_page_would_be_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = make_sample(3)
    full = len(write(sample, tmp_path)[1])
    monkeypatch.setattr(pictures, "MAX_IMAGE_BYTES", 5_000)
    small = write(sample, tmp_path)[1]
    assert len(small) < full
    assert small.count('class="decile"') == 30
    assert "data:image/webp" in small


def test_stays_below_its_limit_when_the_prediction_was_too_low(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = make_sample(3)
    limit = len(write(sample, tmp_path)[1].encode()) - 1
    monkeypatch.setattr(page, "MAX_PAGE_BYTES", limit)
    assert len(write(sample, tmp_path)[1].encode()) <= limit
