"""What a report opens with: counts, layers, times, and twelve units drawn at random."""

from __future__ import annotations

import json
import random
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from dnd.jobs import Job
from dnd.keys import digest_of
from dnd.report.tables import Line

NUM_RANDOM = 12
STATES = ("labeled", "uncertain", "sparse", "dead", "tied", "failed", "cancelled", "pending")
STATE_MEANINGS = {
    "uncertain": "its label hardly does better than unrelated concepts",
    "sparse": "fewer than ten probe images excite it",
    "dead": "the same activation on every probe image",
    "tied": "the same activation on all of its top images",
    "pending": "not ended yet",
}


@dataclass(frozen=True)
class LayerRow:
    """One layer in numbers; hits are None for layers whose units have no names."""

    layer: str
    num_units: int
    counts: tuple[tuple[str, int], ...]
    num_labels: int
    num_distinct: int
    median_percentile: float | None
    median_auc: float | None
    num_hits: int | None
    num_named: int


@dataclass(frozen=True)
class StageRow:
    """Items of a stage, and about what they took, by the mean of items done lately; seconds."""

    stage: str
    num_items: int
    num_failed: int
    item_s: float

    @property
    def total_s(self) -> float:
        return self.num_items * self.item_s


@dataclass(frozen=True)
class Overview:
    """The first page in numbers."""

    job: Job
    profile: str
    started: str
    duration_s: float | None
    counts: tuple[tuple[str, int], ...]
    layers: tuple[LayerRow, ...]
    stages: tuple[StageRow, ...]
    random_lines: tuple[Line, ...]
    unlabelled: tuple[Line, ...]
    settings: str
    starter: bool
    has_percentiles: bool
    has_classes: bool


def make_overview(job: Job, lines: Sequence[Line]) -> Overview:
    """Counts and samples of a job's lines, in the order of labels.jsonl."""
    profile = job.spec.profile or "default"
    return Overview(
        job=job,
        profile=profile,
        started=datetime.fromtimestamp(job.created_at_s, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        duration_s=job.ended_at_s - job.created_at_s if job.ended_at_s else None,
        counts=_counts(lines),
        layers=tuple(
            _layer_row(layer, [line for line in lines if line.layer == layer])
            for layer in dict.fromkeys(line.layer for line in lines)
        ),
        stages=tuple(
            StageRow(s.stage, s.num_done, s.num_failed, s.item_s) for s in job.stages if s.num_done
        ),
        random_lines=tuple(choose_random(job, lines)),
        unlabelled=tuple(
            line
            for state in ("failed", "dead", "tied", "sparse")
            for line in lines
            if line.state == state and not line.label
        ),
        settings=json.dumps(json.loads(job.profile_json or "{}"), indent=2, ensure_ascii=False),
        starter=profile == "starter",
        has_percentiles=any(line.percentile is not None for line in lines),
        has_classes=any(line.true_class for line in lines),
    )


def choose_random(job: Job, lines: Sequence[Line]) -> list[Line]:
    """Twelve units by a seed from the job's specification, in the job's order: not the best."""
    return [lines[place] for place in choose_places(job, len(lines))]


def choose_places(job: Job, num_units: int) -> list[int]:
    """Places of twelve of `num_units` units, ascending."""
    seed = int(digest_of("overview", asdict(job.spec))[:16], 16)
    return sorted(random.Random(seed).sample(range(num_units), min(NUM_RANDOM, num_units)))


def _counts(lines: Sequence[Line]) -> tuple[tuple[str, int], ...]:
    counts = Counter(line.state for line in lines)
    return tuple((state, counts[state]) for state in STATES if counts[state])


def _layer_row(layer: str, lines: Sequence[Line]) -> LayerRow:
    labels = [line.label for line in lines if line.label]
    percentiles = [line.percentile for line in lines if line.percentile is not None]
    aucs = [line.auc for line in lines if line.auc is not None]
    named = [line for line in lines if line.hit is not None]
    return LayerRow(
        layer=layer,
        num_units=len(lines),
        counts=_counts(lines),
        num_labels=len(labels),
        num_distinct=len(set(labels)),
        median_percentile=statistics.median(percentiles) if percentiles else None,
        median_auc=statistics.median(aucs) if aucs else None,
        num_hits=sum(bool(line.hit) for line in named) if named else None,
        num_named=len(named),
    )
