"""dnd try."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_coordinator import FakeCoordinator
from PIL import Image
from unit.cli.conftest import Command

from dnd.jobs import LayerUnits

EVIL = "<script>alert(1)</script>"


class Tags(HTMLParser):
    """Tags of a page, and what it loads."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.pictures: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.pictures += [value or "" for name, value in attrs if name == "src"]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "dog.png"
    Image.new("RGB", (30, 20), "red").save(path)
    return path


def test_units_that_a_picture_excites_are_listed_beside_their_exemplars(
    dnd: Command, fake: FakeCoordinator, server: str, picture: Path
) -> None:
    outcome = dnd("try", picture, "--server", server, "--out", "page.html")
    assert outcome.status == 0, outcome.err
    label = fake.samples["job-1"].units[0].labels[0]
    (line,) = [line for line in outcome.out.splitlines() if label in line]
    for part in ("99.0 %", "3.50", "3.00 to 5.00", "75 %"):
        assert part in line
    (bare,) = [line for line in outcome.out.splitlines() if "bare" in line]
    assert bare.split()[-2:] == ["–", "–"]
    assert outcome.out.endswith("page.html\n")
    page = Tags(Path("page.html").read_text())
    assert len(page.pictures) == 5
    assert all(one.startswith("data:image/webp;base64,") for one in page.pictures)
    assert not {"script", "link", "a"} & set(page.tags)


def test_drawings_of_words_are_listed_beside_the_exemplars(
    dnd: Command, fake: FakeCoordinator, server: str
) -> None:
    words = f"a {EVIL}"
    outcome = dnd("try", "--words", words, "--unit", 3, "--job", "job-1", "--server", server)
    assert outcome.status == 0, outcome.err
    rows = [line.split() for line in outcome.out.splitlines()]
    assert [row for row in rows if row and row[0].isdigit() and len(row) < 4] == [
        ["1", "3.00", "2.50"],
        ["2", "2.00", "1.50"],
        ["3", "1.00"],
    ]
    assert "2 of 3 drawings" in outcome.out
    assert fake.last_words is not None
    asked = fake.samples["job-1"].job.spec.layers[0].layer
    assert (fake.last_words.layer, fake.last_words.unit) == (asked, 3)
    page = Path("try.html").read_text()
    assert EVIL not in page
    assert "script" not in Tags(page).tags
    assert len(Tags(page).pictures) == 5


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ((), 2, "Name a picture, or words"),
        (("dog.png", "--words", "a dog", "--unit", "1"), 2, "Name a picture, or words"),
        (("--words", "a dog"), 2, "go together"),
        (("dog.png", "--unit", "1"), 2, "go together"),
        (("dog.png", "--layer", "head"), 2, "--layer is of the unit"),
        (("nosuch.png",), 2, "does not exist"),
        (("text.png",), 1, "Not a readable"),
        (("large.png",), 1, "more than 16 MiB"),
        (("dog.png", "--job", "nosuch"), 1, "There is no job"),
        (("dog.png", "--out", "nosuch/try.html"), 1, "cannot be written"),
    ],
)
def test_says_what_cannot_be_tried(
    dnd: Command, server: str, picture: Path, arguments: tuple[str, ...], status: int, says: str
) -> None:
    Path("text.png").write_text("no picture")
    with Path("large.png").open("wb") as file:
        file.truncate(17 * 2**20)
    outcome = dnd("try", *arguments, "--server", server)
    assert outcome.status == status
    assert says in outcome.err


def test_asks_for_the_layer_when_the_job_has_several(
    dnd: Command, fake: FakeCoordinator, server: str
) -> None:
    sample = fake.samples["job-1"]
    spec = replace(sample.job.spec, layers=(LayerUnits("one"), LayerUnits("two")))
    sample.job = replace(sample.job, spec=spec)
    outcome = dnd("try", "--words", "a dog", "--unit", 3, "--server", server)
    assert "has 2 layers: name one with --layer: one, two" in outcome.err
    outcome = dnd("try", "--words", "a dog", "--unit", 3, "--layer", "two", "--server", server)
    assert outcome.status == 0
    assert fake.last_words is not None
    assert fake.last_words.layer == "two"
