"""The explorer as a folder that opens from disk: the same pages, and what they show beside them."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dnd.chunks import chunks
from dnd.errors import BadImage, FailedPrecondition
from dnd.explorer.links import MAX_FAILURES, NUM_BINS, SORTS, UNITS_ON_A_PAGE, UnitQuery
from dnd.explorer.mosaics import NUM_TILES, make_mosaic
from dnd.explorer.site import ASSETS, read_asset, render
from dnd.explorer.views import Bin, Card, LayerCard, Segment, make_bins, segments
from dnd.images import decode_image
from dnd.jobs import Job, UnitState
from dnd.report.overview import choose_random
from dnd.report.pictures import (
    Fetch,
    Kind,
    Level,
    Picture,
    fetch_those_there,
    largest_kinds,
    make_album,
)
from dnd.report.results import writing_results
from dnd.report.tables import LabelFile, Line
from dnd.report.units import shown_pictures, view_unit

UNITS_AT_ONCE = 32
SEARCHED = "units.js"
"""All units, as the page of searches reads them."""
LEVEL = Level({Kind.DECILE: 72, Kind.DRAWING: 112, Kind.SOURCE: 256}, 80, 3, 5)


class FolderLinks:
    """Addresses in a folder, relative to a page.

    Args:
        layers: The job's layers, in its order.
        depth: Folders between the page and the top.
    """

    on_server = False

    def __init__(self, layers: Sequence[str], depth: int = 0) -> None:
        self._layers = {layer: place for place, layer in enumerate(layers)}
        self._up = "../" * depth

    def asset(self, name: str) -> str:
        return f"{self._up}assets/{name}"

    def jobs(self) -> str:
        return f"{self._up}index.html"

    def job(self, job: str) -> str:
        return self.jobs()

    def search(self, words: str = "") -> str:
        return f"{self._up}search.html"

    def units(self, job: str, query: UnitQuery) -> str:
        layer = self._layers[query.layer] if query.layer else "all"
        return f"{self._up}units/{layer}-{query.sort}-{query.page}.html"

    def unit(self, job: str, layer: str, unit: int, query: UnitQuery | None = None) -> str:
        return f"{self._up}unit/{self._layers[layer]}-{unit}.html"

    def image(self, job: str, layer: str, unit: int, ref: str, side: int) -> str:
        return f"{self._up}images/{re.sub('[^0-9a-zA-Z]', '', ref)[:70]}-{side}.webp"

    def mosaic(self, job: str, layer: str, unit: int, version: str) -> str:
        return f"{self._up}mosaics/{self._layers[layer]}-{unit}.webp"


def write_explorer(job: Job, labels: LabelFile, fetch: Fetch, out: Path) -> Path:
    """Writes the explorer of a job's results into the folder `out`, which it replaces.

    Args:
        job: The job.
        labels: Its records.
        fetch: Where its images come from; those that are gone are left out.
        out: A folder that this function has made before, or that is not there.

    Returns:
        The page to open.

    Raises:
        StorageFull: The disk is full.
        FailedPrecondition: The folder cannot be written to, or has something else in it.
    """
    if out.exists() and not (out / SEARCHED).is_file():
        raise FailedPrecondition(
            f"{out} is not a folder of the explorer: move it away, or export to another folder."
        )
    draft = out.with_name(f".{out.name}.part")
    with writing_results(job, out.parent):
        shutil.rmtree(draft, ignore_errors=True)
        for name in ("assets", "images", "mosaics", "unit", "units"):
            (draft / name).mkdir(parents=True)
        for name in ASSETS:
            (draft / "assets" / name).write_bytes(read_asset(name))
        _Writer(job, labels, fetch, draft).write()
        shutil.rmtree(out, ignore_errors=True)
        draft.replace(out)
    return out / "index.html"


class _Writer:
    def __init__(self, job: Job, labels: LabelFile, fetch: Fetch, folder: Path) -> None:
        self._job, self._labels, self._fetch, self._folder = job, labels, fetch, folder
        self._layers = list(dict.fromkeys(line.layer for line in labels.lines))
        self._top, self._below = FolderLinks(self._layers), FolderLinks(self._layers, 1)
        self._with_mosaic: set[tuple[str, int]] = set()
        self._pictures: dict[tuple[str, Kind], Picture] = {}

    def write(self) -> None:
        """Units first: lists show what was found of each."""
        lines = self._labels.lines
        near = zip((None, *lines[:-1]), lines, (*lines[1:], None), strict=True)
        for some in chunks(list(near), UNITS_AT_ONCE):
            self._write_units(some)
        for layer in ("", *self._layers) if len(self._layers) > 1 else self._layers:
            for sort in SORTS:
                self._write_lists(UnitQuery(layer=layer, sort=sort))
        self._write_overview()
        self._write_search()

    def _page(self, path: str, template: str, **values: Any) -> None:
        links = self._below if "/" in path else self._top
        html = render(template, links, job=self._job, **values)
        (self._folder / path).write_text(html, encoding="utf-8")

    def _write_units(self, some: Sequence[tuple[Line | None, Line, Line | None]]) -> None:
        """The pages of some units, each with the units before and after it."""
        records = self._labels.read([line for _, line, _ in some])
        kinds = [largest_kinds(shown_pictures(record, LEVEL)) for record in records]
        self._store_pictures(kinds)
        self._store_mosaics(records)
        for (before, line, after), record, shown in zip(some, records, kinds, strict=True):
            pictures = {ref: self._pictures.get((ref, kind)) for ref, kind in shown.items()}
            self._page(
                self._top.unit(self._job.id, line.layer, line.unit),
                "unit.html.j2",
                unit=view_unit(record, pictures, LEVEL),
                histogram=None,
                up=self._below.units(self._job.id, UnitQuery(layer=line.layer)),
                before=self._card(before, self._below) if before else None,
                after=self._card(after, self._below) if after else None,
                can_try=False,
            )

    def _store_pictures(self, kinds: Sequence[Mapping[str, Kind]]) -> None:
        """Each picture once in each size, whatever number of units show it."""
        for kind in Kind:
            new = {
                ref: kind
                for shown in kinds
                for ref, shown_as in shown.items()
                if shown_as is kind and (ref, kind) not in self._pictures
            }
            album = make_album(self._fetch, new, LEVEL)
            for ref in new:
                if (picture := album.get(ref)) is None:
                    continue
                place = (self._job.id, "", 0, ref, LEVEL.sides[kind])
                (self._folder / self._top.image(*place)).write_bytes(picture.data)
                href = self._below.image(*place)
                self._pictures[ref, kind] = replace(picture, css_class="", data=b"", href=href)

    def _store_mosaics(self, records: Sequence[Mapping[str, Any]]) -> None:
        for record in records:
            refs = [one["image"] for one in (record.get("exemplars") or [])[:NUM_TILES]]
            images = []
            for _, data in fetch_those_there(self._fetch, refs):
                try:
                    images.append(decode_image(data))
                except BadImage:
                    continue
            if images:
                place = (record["layer"], record["unit"])
                path = self._folder / self._top.mosaic(self._job.id, *place, "")
                path.write_bytes(make_mosaic(images))
                self._with_mosaic.add(place)

    def _card(self, line: Line, links: FolderLinks) -> Card:
        place = (line.layer, line.unit)
        return Card(
            layer=line.layer,
            unit=line.unit,
            state=line.state,
            label=line.label,
            second=line.runner_up,
            percentile=line.percentile,
            auc=line.auc,
            error=line.error,
            stage="",
            href=links.unit(self._job.id, *place),
            mosaic=links.mosaic(self._job.id, *place, "") if place in self._with_mosaic else "",
            true_class=line.true_class,
            hit=line.hit,
        )

    def _lines(self, query: UnitQuery) -> list[Line]:
        lines = [line for line in self._labels.lines if query.layer in ("", line.layer)]

        def highest(value: float | None, sign: int = -1) -> tuple[bool, float]:
            return value is None, sign * (value or 0.0)

        keys = {
            "percentile": lambda line: highest(line.percentile),
            "lowest": lambda line: highest(line.percentile, 1),
            "auc": lambda line: highest(line.auc),
            "label": lambda line: (not line.label, line.label.lower()),
        }
        return sorted(lines, key=keys[query.sort]) if query.sort in keys else lines

    def _write_lists(self, query: UnitQuery) -> None:
        lines = self._lines(query)
        num_pages = -(-len(lines) // UNITS_ON_A_PAGE)
        for number, some in enumerate(chunks(lines, UNITS_ON_A_PAGE), 1):
            asked = query.with_(page=number)
            self._page(
                self._top.units(self._job.id, asked),
                "units.html.j2",
                query=asked,
                plain=UnitQuery(),
                layers=self._layers,
                counts=Counter(line.state for line in lines),
                bins=_bins(lines),
                cards=[self._card(line, self._below) for line in some],
                total=len(lines),
                num_pages=num_pages,
            )

    def _write_overview(self) -> None:
        job, lines = self._job, self._labels.lines
        failed = [line for line in lines if line.state == UnitState.FAILED.value]
        whole = UnitQuery(layer="" if len(self._layers) > 1 else self._layers[0])
        self._page(
            "index.html",
            "job.html.j2",
            live="",
            bars=_segments(lines),
            elapsed_s=job.ended_at_s - job.created_at_s if job.ended_at_s else None,
            query=whole,
            failures=[self._card(line, self._top) for line in failed[:MAX_FAILURES]],
            layers=[
                LayerCard(layer, len(own), _segments(own), UnitQuery(layer=layer), _bins(own))
                for layer in self._layers
                for own in [[line for line in lines if line.layer == layer]]
            ],
            num_layers=len(self._layers),
            samples=[self._card(line, self._top) for line in choose_random(job, lines)],
            can_try=False,
        )

    def _write_search(self) -> None:
        """All units as data that the page of searches looks through in the browser."""
        cards = [self._card(line, self._top) for line in self._labels.lines]
        rows = [
            [c.layer, c.unit, c.state, c.label, c.second, c.percentile, c.href, c.mosaic]
            for c in cards
        ]
        data = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
        (self._folder / SEARCHED).write_text(f"window.units={data};\n", encoding="utf-8")
        self._page("search.html", "folder_search.html.j2")


def _bins(lines: Sequence[Line]) -> tuple[Bin, ...]:
    counts = [0] * NUM_BINS
    for line in lines:
        if line.percentile is not None:
            counts[min(int(line.percentile * NUM_BINS), NUM_BINS - 1)] += 1
    return make_bins(counts)


def _segments(lines: Sequence[Line]) -> tuple[Segment, ...]:
    return segments(Counter(UnitState(line.state) for line in lines))
