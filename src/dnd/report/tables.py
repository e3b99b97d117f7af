"""labels.jsonl and labels.csv: one line for each unit, by layer and unit, written as they arrive.

Records are not kept in memory: what stays is where each line lies in labels.jsonl, so that a job of
a hundred thousand units is exported like one of fifty.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dnd.jobs import Job, UnitResult
from dnd.report.class_names import is_hit
from dnd.types import LayerInfo

_SCORES = ("topk_squared_mean", "image_products", "probe_correlation")
_TOKENS = ("num_calls", "num_input_tokens", "num_output_tokens")
COLUMNS = (
    *("model", "layer", "unit", "state", "label", "runner_up", "third", "score"),
    *("percentile", "auc", "method", "certainty"),
    "other_kinds",
    *("true_class", "hit", "max_activation", "num_exemplars", "num_candidates"),
    *_SCORES,
    *("profile", "probe", "seed"),
    *_TOKENS,
    *("error", "job"),
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Line:
    """Where one unit's record lies in labels.jsonl, and what an overview needs of it."""

    layer: str
    unit: int
    state: str
    label: str
    runner_up: str
    percentile: float | None
    auc: float | None
    true_class: str
    hit: bool | None
    error: str
    start: int
    size: int


@dataclass(frozen=True)
class LabelFile:
    """A written labels.jsonl; lines in the order of the file."""

    path: Path
    lines: tuple[Line, ...]

    def read(self, lines: Sequence[Line]) -> list[dict[str, Any]]:
        """The full records of some lines."""
        with self.path.open("rb") as file:
            return [json.loads(_bytes(file, line)) for line in lines]


def write_tables(
    job: Job, units: Iterable[UnitResult], layers: Sequence[LayerInfo], out: Path
) -> LabelFile:
    """Writes labels.jsonl and labels.csv into `out`; a file is replaced only once it is complete.

    Args:
        job: The job, for the order of its layers and for units that have no record yet.
        units: The units with their records, in any order.
        layers: The layers of the model, for the names of its classes.
        out: An existing folder.
    """
    names = {layer.path: layer.unit_names for layer in layers}
    draft = out / ".labels.jsonl.part"
    lines: list[Line] = []
    start = 0
    with draft.open("wb") as file:
        for unit in units:
            record = complete_record(job, unit, names.get(unit.layer, ()))
            data = json.dumps(record, ensure_ascii=False, sort_keys=True).encode() + b"\n"
            file.write(data)
            lines.append(_line(record, start, len(data)))
            start += len(data)
    place = {one.layer: number for number, one in enumerate(job.spec.layers)}
    ordered = sorted(lines, key=lambda line: (place.get(line.layer, len(place)), line.unit))
    if ordered != lines:
        ordered = _reorder(draft, ordered)
    path = draft.replace(out / "labels.jsonl")
    labels = LabelFile(path, tuple(ordered))
    _write_csv(labels, out / "labels.csv")
    return labels


def complete_record(job: Job, unit: UnitResult, names: Sequence[str]) -> dict[str, Any]:
    """A unit's record with the name of its class, if it has one, and whether the label agrees."""
    return with_class(unit.record or _bare_record(job, unit), names)


def with_class(record: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A copy of a record with the name of its unit's class, if `names` has one."""
    found = dict(record)
    name = names[found["unit"]] if found["unit"] < len(names) else ""
    if name:
        labels = found.get("labels") or []
        hit = is_hit(labels[0]["text"], name) if labels else None
        found["true_class"] = {"name": name, "hit": hit}
    return found


def _bare_record(job: Job, unit: UnitResult) -> dict[str, Any]:
    """What is known of a unit that has no record: one that has not ended, say."""
    return {
        "schema": 1,
        "job": job.id,
        "model": job.spec.model,
        "layer": unit.layer,
        "unit": unit.unit,
        "state": unit.state.value,
        "method": "",
        "labels": [],
        "concepts": [],
        "certainty": None,
        "percentile": None,
        "auc": None,
        "exemplars": [],
        "deciles": [],
        "candidates": [],
        "facets": [],
        "calibration": None,
        "profile": job.spec.profile or "default",
        "digests": dict(job.digests),
        "probe": job.spec.probe,
        "seed": job.spec.seed,
        "tokens": None,
        "timings": {},
        "error": unit.error,
    }


def _line(record: Mapping[str, Any], start: int, size: int) -> Line:
    labels = [label["text"] for label in record.get("labels") or []]
    truth = record.get("true_class") or {}
    return Line(
        layer=record["layer"],
        unit=record["unit"],
        state=record["state"],
        label=labels[0] if labels else "",
        runner_up=labels[1] if len(labels) > 1 else "",
        percentile=record.get("percentile"),
        auc=record.get("auc"),
        true_class=truth.get("name", ""),
        hit=truth.get("hit"),
        error=record.get("error") or "",
        start=start,
        size=size,
    )


def _reorder(draft: Path, ordered: Sequence[Line]) -> list[Line]:
    """Writes the lines of `draft` in another order; returns them with their new places."""
    moved: list[Line] = []
    target = draft.with_suffix(".sorted")
    with draft.open("rb") as source, target.open("wb") as file:
        for line in ordered:
            start = file.tell()
            file.write(_bytes(source, line))
            moved.append(Line(**{**line.__dict__, "start": start}))
    target.replace(draft)
    return moved


def _bytes(file: BinaryIO, line: Line) -> bytes:
    file.seek(line.start)
    return file.read(line.size)


def _write_csv(labels: LabelFile, path: Path) -> None:
    draft = path.with_name(".labels.csv.part")
    with draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for line in labels.lines:
            (record,) = labels.read([line])
            writer.writerow({name: _cell(value) for name, value in row_of(record).items()})
    draft.replace(path)


def row_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as one row of `COLUMNS`; None where there is no value."""
    line = _line(record, 0, 0)
    found = record.get("labels") or []
    chosen = found[0]["candidate"] if found else None
    best: Mapping[str, Any] = {} if chosen is None else record["candidates"][chosen]
    tokens = record.get("tokens") or {}
    exemplars = record.get("exemplars") or []
    others = [facet["labels"] for facet in (record.get("facets") or [])[1:]]
    return {
        "model": record.get("model"),
        "layer": line.layer,
        "unit": line.unit,
        "state": line.state,
        "label": line.label,
        "runner_up": line.runner_up,
        "third": found[2]["text"] if len(found) > 2 else "",
        "score": found[0]["score"] if found else None,
        "percentile": line.percentile,
        "auc": line.auc,
        "other_kinds": "; ".join(one[0]["text"] for one in others if one),
        "true_class": line.true_class,
        "hit": None if line.hit is None else int(line.hit),
        "max_activation": max((e["activation"] for e in exemplars), default=None),
        "num_exemplars": len(exemplars),
        "num_candidates": len(record.get("candidates") or []),
        "error": line.error,
        **{name: best.get(name) for name in _SCORES},
        **{name: record.get(name) for name in ("method", "certainty")},
        **{name: record.get(name) for name in ("profile", "probe", "seed", "job")},
        **{name: tokens.get(name) for name in _TOKENS},
    }


def _cell(value: Any) -> Any:
    """Labels and captions are strangers' text: a spreadsheet must not run one as a formula."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value
