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
from dnd.errors import BadImage
from dnd.explorer.links import SORTS, UnitQuery
from dnd.explorer.mosaics import NUM_TILES, make_mosaic
from dnd.explorer.site import ASSETS, read_asset, render
from dnd.explorer.views import Card, LayerCard, Segment, make_bins, segments
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

UNITS_ON_A_PAGE = 96
UNITS_AT_ONCE = 32
MAX_FAILURES = 20
NUM_BINS = 20
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
        FailedPrecondition: The folder cannot be written to.
    """
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
        self._with_mosaic: set[tuple[str, int]] = set()
        self._pictures: dict[tuple[str, Kind], Picture] = {}

    def write(self) -> None:
        """Units first: lists show what was found of each."""
        for some in chunks(self._labels.lines, UNITS_AT_ONCE):
            self._write_units(some)
        for layer in ("", *self._layers) if len(self._layers) > 1 else self._layers:
            for sort in SORTS:
                self._write_lists(UnitQuery(layer=layer, sort=sort))
        self._write_overview()
        self._write_search()

    def _page(self, path: str, template: str, **values: Any) -> None:
        links = FolderLinks(self._layers, path.count("/"))
        html = render(template, links, job=self._job, **values)
        (self._folder / path).write_text(html, encoding="utf-8")

    def _write_units(self, lines: Sequence[Line]) -> None:
        records = self._labels.read(lines)
        kinds = [largest_kinds(shown_pictures(record, LEVEL)) for record in records]
        self._store_pictures(kinds)
        self._store_mosaics(records)
        at = {(line.layer, line.unit): place for place, line in enumerate(self._labels.lines)}
        links = FolderLinks(self._layers, 1)
        for record, shown in zip(records, kinds, strict=True):
            place = at[record["layer"], record["unit"]]
            near = self._labels.lines[max(place - 1, 0) : place + 2]
            listed = UnitQuery(layer=record["layer"])
            self._page(
                f"unit/{self._layers.index(record['layer'])}-{record['unit']}.html",
                "unit.html.j2",
                unit=view_unit(record, _Linked(self._pictures, shown), LEVEL),
                histogram=None,
                up=links.units(self._job.id, listed),
                before=self._card(near[0], links) if place else None,
                after=self._card(near[-1], links)
                if near[-1] != self._labels.lines[place]
                else None,
                can_try=False,
            )

    def _store_pictures(self, kinds: Sequence[Mapping[str, Kind]]) -> None:
        """Each picture once, whatever number of units show it."""
        new = {
            ref: kind
            for shown in kinds
            for ref, kind in shown.items()
            if (ref, kind) not in self._pictures
        }
        album = make_album(self._fetch, new, LEVEL)
        links = FolderLinks(self._layers, 1)
        for ref, kind in new.items():
            if (picture := album.get(ref)) is None:
                continue
            href = links.image(self._job.id, "", 0, ref, LEVEL.sides[kind])
            (self._folder / "unit" / href).write_bytes(picture.data)
            self._pictures[ref, kind] = replace(picture, css_class="", data=b"", href=href)

    def _store_mosaics(self, records: Sequence[Mapping[str, Any]]) -> None:
        links = FolderLinks(self._layers, 1)
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
                path = self._folder / "unit" / links.mosaic(self._job.id, *place, "")
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
        links = FolderLinks(self._layers, 1)
        for number, some in enumerate(chunks(lines, UNITS_ON_A_PAGE), 1):
            asked = query.with_(page=number)
            self._page(
                FolderLinks(self._layers).units(self._job.id, asked),
                "units.html.j2",
                query=asked,
                plain=UnitQuery(),
                layers=self._layers,
                counts=Counter(line.state for line in lines),
                bins=_bins(lines),
                cards=[self._card(line, links) for line in some],
                total=len(lines),
                num_pages=num_pages,
            )

    def _write_overview(self) -> None:
        links = FolderLinks(self._layers)
        lines = self._labels.lines
        failed = [line for line in lines if line.state == UnitState.FAILED.value]
        whole = UnitQuery(layer="" if len(self._layers) > 1 else self._layers[0])
        self._page(
            "index.html",
            "job.html.j2",
            live="",
            bars=_segments(lines),
            elapsed_s=max(
                (self._job.ended_at_s or self._job.created_at_s) - self._job.created_at_s, 0
            ),
            query=whole,
            failed_query=whole,
            failures=[self._card(line, links) for line in failed[:MAX_FAILURES]],
            layers=[
                LayerCard(layer, len(own), _segments(own), UnitQuery(layer=layer), _bins(own))
                for layer in self._layers
                for own in [[line for line in lines if line.layer == layer]]
            ],
            num_layers=len(self._layers),
            samples=[self._card(line, links) for line in choose_random(self._job, lines)],
            can_try=False,
        )

    def _write_search(self) -> None:
        """All units as data that the page of searches looks through in the browser."""
        links = FolderLinks(self._layers)
        cards = [self._card(line, links) for line in self._labels.lines]
        rows = [
            [c.layer, c.unit, c.state, c.label, c.second, c.percentile, c.href, c.mosaic]
            for c in cards
        ]
        data = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
        (self._folder / "units.js").write_text(f"window.units={data};\n", encoding="utf-8")
        self._page("search.html", "folder_search.html.j2")


class _Linked:
    """The pictures of one unit."""

    def __init__(
        self, pictures: Mapping[tuple[str, Kind], Picture], kinds: Mapping[str, Kind]
    ) -> None:
        self._pictures, self._kinds = pictures, kinds

    def get(self, ref: str) -> Picture | None:
        return self._pictures.get((ref, self._kinds[ref])) if ref in self._kinds else None


def _bins(lines: Sequence[Line]) -> tuple[Any, ...]:
    counts = [0] * NUM_BINS
    for line in lines:
        if line.percentile is not None:
            counts[min(int(line.percentile * NUM_BINS), NUM_BINS - 1)] += 1
    return make_bins(counts)


def _segments(lines: Sequence[Line]) -> tuple[Segment, ...]:
    return segments(Counter(UnitState(line.state) for line in lines))
