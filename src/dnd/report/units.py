"""One unit's record as the report shows it: numbers as text, bars as fractions of their scale."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from dnd.report.components import COMPONENTS, METHODS, ORIGINS, Component
from dnd.report.pictures import Kind, Level, Pictures
from dnd.report.scale import Scale, short


@dataclass(frozen=True)
class Tile:
    """A picture with the unit's activation on it.

    Attributes:
        css_class: Of the thumbnail; empty if the page does not carry it.
        href: Of the thumbnail; empty if the page carries it, and if it is gone.
        aspect: Width divided by height of the image that it was made from.
        box: Left, top, width, height of the crop in per cent of the picture; None for all of it.
        activation: As text.
        fraction: Of the activation between the lowest and the highest of its group, 0 to 1.
        caption: What the captioner said; None where it was not asked or failed.
    """

    css_class: str
    aspect: float
    box: tuple[float, float, float, float] | None
    activation: str
    fraction: float = 0.0
    caption: str | None = None
    href: str = ""


@dataclass(frozen=True)
class Decile:
    number: int
    tiles: tuple[Tile, ...]
    mean: str
    fraction: float


@dataclass(frozen=True)
class Score:
    """One component of a candidate; `fraction` is 1 for the unit's best one and 0 for its worst."""

    text: str
    fraction: float


@dataclass(frozen=True)
class CandidateView:
    text: str
    origin: str
    origin_meaning: str
    place: int | None
    score: str
    scores: tuple[Score | None, ...]
    drawings: tuple[Tile, ...]
    num_drawings: int
    dropped: str


@dataclass(frozen=True)
class ConceptView:
    """A concept of the job's set; `fraction` is 1 for the best one and 0 for the last one shown."""

    text: str
    value: str
    fraction: float


@dataclass(frozen=True)
class UnitView:
    """All that a page says about one unit.

    Attributes:
        uncalibrated: Why its label has no percentile, where the profile asks for it.
        stronger: Concepts of the bank whose drawings excite it more than those of its label.
        contrast: Captions of weakly activating images that the language model was shown.
    """

    anchor: str
    layer: str
    unit: int
    state: str
    labels: tuple[str, ...]
    percentile: float | None
    uncalibrated: str
    stronger: tuple[str, ...]
    auc: float | None
    true_class: str
    hit: bool | None
    error: str
    exemplars: tuple[Tile, ...]
    deciles: tuple[Decile, ...]
    contrast: tuple[str, ...]
    components: tuple[Component, ...]
    candidates: tuple[CandidateView, ...]
    method: str
    concepts: tuple[ConceptView, ...]
    certainty: str
    facts: tuple[tuple[str, str], ...]
    facets: tuple[Facet, ...]
    search: str


@dataclass(frozen=True)
class Facet:
    """One of several kinds of images that a unit responds to.

    Attributes:
        share: Of the kind in what excites the unit, as text.
        unit: Its labels, exemplars and candidates; of the unit as a whole it says nothing.
    """

    share: str
    unit: UnitView


def anchor_of(layer: str, unit: int) -> str:
    """Fragment of a unit's section; distinct for distinct units."""
    return f"u-{re.sub('[^A-Za-z0-9._-]', '-', layer)}-{unit}"


def facet_records(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each kind of images beyond the first, the record as if the unit had this kind alone."""
    return [
        {**record, "deciles": [], "auc": None, "tokens": None, "timings": {}, **facet, "facets": []}
        for facet in (record.get("facets") or [])[1:]
    ]


def shown_pictures(record: Mapping[str, Any], level: Level) -> Iterator[tuple[str, Kind]]:
    """The references that a unit's section shows at a level of quality."""
    for facet in facet_records(record):
        yield from shown_pictures(facet, level)
    for exemplar in record.get("exemplars") or []:
        yield exemplar["source"], Kind.SOURCE
    for image in _kept_deciles(record, level):
        yield image["image"], Kind.DECILE
    for candidate in _best_first(record)[: level.num_drawn]:
        for ref in candidate.get("images") or []:
            yield ref, Kind.DRAWING


def view_unit(record: Mapping[str, Any], album: Pictures, level: Level) -> UnitView:
    """What a page says about the unit of `record`."""
    labels = tuple(label["text"] for label in record.get("labels") or [])
    truth = record.get("true_class") or {}
    components = tuple(
        c
        for c in COMPONENTS
        if any(_number(one.get(c.key)) is not None for one in record.get("candidates") or [])
        and (c.key != "topk_compare" or record.get("profile") == "paper")
    )
    captions = dict.fromkeys(e.get("caption") or "" for e in record.get("exemplars") or [])
    facets = tuple(
        Facet(f"{100 * one['share']:.0f} %", view_unit(one, album, level))
        for one in facet_records(record)
    )
    words = [record["layer"], str(record["unit"]), record["state"], truth.get("name", "")]
    return UnitView(
        anchor=anchor_of(record["layer"], record["unit"]),
        layer=record["layer"],
        unit=record["unit"],
        state=record["state"],
        labels=labels,
        percentile=_number(record.get("percentile")),
        uncalibrated=(record.get("calibration") or {}).get("error") or "",
        stronger=_stronger(record),
        auc=_number(record.get("auc")),
        true_class=truth.get("name", ""),
        hit=truth.get("hit"),
        error=record.get("error") or "",
        exemplars=_exemplars(record, album),
        deciles=_deciles(record, album, level),
        contrast=tuple(c for one in record.get("deciles") or [] if (c := one.get("caption"))),
        components=components,
        candidates=_candidates(record, album, level, components),
        method=METHODS.get(record.get("method") or "", ""),
        concepts=_concepts(record),
        certainty=short(_number(record.get("certainty")), 2),
        facts=_facts(record),
        facets=facets,
        search=" ".join([*words, *labels, *captions, *(f.unit.search for f in facets)]).lower(),
    )


def _stronger(record: Mapping[str, Any]) -> tuple[str, ...]:
    found = record.get("calibration") or {}
    return tuple(
        one["text"]
        for one in found.get("strongest") or []
        if one["activation"] > found["activation"]
    )


def _concepts(record: Mapping[str, Any]) -> tuple[ConceptView, ...]:
    found = record.get("concepts") or []
    scale = Scale.of([one["value"] for one in found])
    return tuple(
        ConceptView(one["text"], scale.text(one["value"]), scale.fraction(one["value"], flat=1.0))
        for one in found
    )


def _exemplars(record: Mapping[str, Any], album: Pictures) -> tuple[Tile, ...]:
    found = record.get("exemplars") or []
    scale = Scale.of([e["activation"] for e in found])
    return tuple(
        _tile(
            album, e["source"], e["activation"], scale, box=e.get("box"), caption=e.get("caption")
        )
        for e in found
    )


def _deciles(record: Mapping[str, Any], album: Pictures, level: Level) -> tuple[Decile, ...]:
    all_images = record.get("deciles") or []
    scale = Scale.of([image["activation"] for image in all_images])
    shown = _kept_deciles(record, level)
    deciles = []
    for number in sorted({image["decile"] for image in all_images}):
        mean = fmean(i["activation"] for i in all_images if i["decile"] == number)
        tiles = tuple(
            _tile(album, i["image"], i["activation"], scale) for i in shown if i["decile"] == number
        )
        deciles.append(Decile(number, tiles, scale.text(mean), scale.fraction(mean)))
    return tuple(deciles)


def _kept_deciles(record: Mapping[str, Any], level: Level) -> list[Mapping[str, Any]]:
    kept: list[Mapping[str, Any]] = []
    for image in record.get("deciles") or []:
        if sum(one["decile"] == image["decile"] for one in kept) < level.per_decile:
            kept.append(image)
    return kept


def _best_first(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Candidates by place: labels first, then by the mean of their ranks, dropped ones last."""
    candidates = record.get("candidates") or []
    labels = record.get("labels") or []
    chosen = [label["candidate"] for label in labels if label["candidate"] is not None]

    def place(index: int) -> tuple[bool, int, float, int]:
        one = candidates[index]
        kept = chosen.index(index) if index in chosen else len(chosen)
        rank = _number(one.get("mean_rank"))
        return bool(one.get("dropped")), kept, rank if rank is not None else 1e9, index

    return [candidates[index] for index in sorted(range(len(candidates)), key=place)]


def _candidates(
    record: Mapping[str, Any], album: Pictures, level: Level, components: Sequence[Component]
) -> tuple[CandidateView, ...]:
    ordered = _best_first(record)
    num_labels = len(record.get("labels") or [])
    scale = Scale.of([a for one in ordered for a in one.get("activations") or []])
    totals = _column(ordered, "score")
    columns = {c.key: _column(ordered, c.key) for c in components}
    views = []
    for place, one in enumerate(ordered):
        origin, meaning = ORIGINS.get(one.get("origin", ""), (str(one.get("origin", "")), ""))
        pairs = zip(one.get("images") or [], one.get("activations") or [], strict=False)
        drawings = sorted(pairs, key=lambda pair: -pair[1])
        views.append(
            CandidateView(
                text=one["text"],
                origin=origin,
                origin_meaning=meaning,
                place=place + 1 if place < num_labels else None,
                score="" if (v := _number(one.get("score"))) is None else totals.text(v),
                scores=tuple(_score(one, c, columns[c.key]) for c in components),
                drawings=tuple(_tile(album, ref, a, scale) for ref, a in drawings)
                if place < level.num_drawn
                else (),
                num_drawings=len(drawings),
                dropped=one.get("dropped") or "",
            )
        )
    return tuple(views)


def _column(candidates: Sequence[Mapping[str, Any]], key: str) -> Scale:
    return Scale.of([v for one in candidates if (v := _number(one.get(key))) is not None])


def _score(candidate: Mapping[str, Any], component: Component, scale: Scale) -> Score | None:
    value = _number(candidate.get(component.key))
    if value is None:
        return None
    fraction = scale.fraction(value, flat=1.0 if component.sign > 0 else 0.0)
    return Score(scale.text(value), fraction if component.sign > 0 else 1 - fraction)


def _facts(record: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Cost and time of the unit, in words."""
    tokens = record.get("tokens") or {}
    timings = record.get("timings") or {}
    facts = []
    if tokens:
        facts.append(
            (
                "language model",
                f"{tokens.get('num_calls', 0)} calls, "
                f"{tokens.get('num_input_tokens', 0):,} tokens in, "
                f"{tokens.get('num_output_tokens', 0):,} out",
            )
        )
    facts += [(stage, f"{short(_number(s), 2)} s") for stage, s in timings.items()]
    return tuple(facts)


def _tile(
    album: Pictures,
    ref: str,
    activation: float,
    scale: Scale,
    *,
    box: Sequence[float] | None = None,
    caption: str | None = None,
) -> Tile:
    picture = album.get(ref)
    place = None
    if picture and box:
        x0, y0, x1, y1 = box
        place = (
            100 * x0 / picture.width,
            100 * y0 / picture.height,
            100 * (x1 - x0) / picture.width,
            100 * (y1 - y0) / picture.height,
        )
    return Tile(
        css_class=picture.css_class if picture else "",
        aspect=picture.width / picture.height if picture else 1.0,
        box=place,
        activation=scale.text(activation),
        fraction=scale.fraction(activation),
        caption=caption,
        href=picture.href if picture else "",
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and value == value else None
