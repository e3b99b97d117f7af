"""A job with records and pictures as a coordinator would answer them; the same every time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from dnd.errors import NotFound
from dnd.images import encode_png
from dnd.jobs import Job, JobSpec, JobState, LayerUnits, StageCount, UnitResult, UnitState
from dnd.profiles import get_profile, to_json
from dnd.types import LayerInfo, LayerKind

LAYERS = (
    LayerInfo("features.3", "Conv2d", LayerKind.CONV, 64, (64, 14, 14)),
    LayerInfo(
        "head", "Linear", LayerKind.LINEAR, 400, (400,), tuple(f"thing {n}" for n in range(400))
    ),
)


@dataclass
class Sample:
    """A job, its units in the job's order, and the images that they refer to."""

    job: Job
    units: list[UnitResult]
    images: dict[str, bytes] = field(default_factory=dict)

    def fetch(self, refs: list[str]) -> list[bytes]:
        missing = [ref for ref in refs if ref not in self.images]
        if missing:
            raise NotFound(f"The job has no image {missing[0]}.")
        return [self.images[ref] for ref in refs]


def make_sample(
    num_units: int = 3,
    *,
    layer: str = "head",
    states: dict[int, UnitState] | None = None,
    caption: str = "a red square on white",
    label: str = "red square",
    **job: Any,
) -> Sample:
    """Units 0, 1, … of one layer; labelled but for those in `states`."""
    states = states or {}
    sample = Sample(
        Job(
            id="job-1",
            spec=JobSpec(
                "small-net", (LayerUnits(layer, tuple(range(num_units))),), "squares", "starter"
            ),
            state=JobState.COMPLETED,
            num_units=num_units,
            units={UnitState.LABELED: num_units - len(states)},
            stages=(StageCount("index", 4, 0, 0, 4, 1.5), StageCount("score", 3, 0, 0, 3, 0.02)),
            created_at_s=1_700_000_000.0,
            ended_at_s=1_700_000_100.0,
            profile_json=to_json(get_profile("starter")),
            digests={"target": "ab" * 32},
            **job,
        ),
        [],
    )
    for unit in range(num_units):
        state = states.get(unit, UnitState.LABELED)
        record = _record(sample, layer, unit, state, caption, label)
        labels = tuple(one["text"] for one in record["labels"])
        sample.units.append(UnitResult(layer, unit, state, "", labels, record, record["error"]))
    return sample


def _record(
    sample: Sample, layer: str, unit: int, state: UnitState, caption: str, label: str
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "schema": 1,
        "job": sample.job.id,
        "model": sample.job.spec.model,
        "layer": layer,
        "unit": unit,
        "state": state.value,
        "method": "dnd" if state is UnitState.LABELED else "",
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
        "profile": "starter",
        "digests": dict(sample.job.digests),
        "probe": "squares",
        "seed": 0,
        "tokens": None,
        "timings": {},
        "error": "The model answered nothing usable." if state is UnitState.FAILED else "",
    }
    if state not in (UnitState.LABELED, UnitState.UNCERTAIN):
        return record
    exemplars = [_picture(sample, (200, 10 * n, unit % 256), 48 + n) for n in range(10)]
    record |= {
        "labels": [
            {"text": f"{label} {unit}", "score": 1.25, "candidate": 1},
            {"text": "plain ground", "score": 2.5, "candidate": 0},
        ],
        "concepts": [
            {"text": "a square", "value": 12.5},
            {"text": "a <b>mark</b>", "value": 9.25},
        ],
        "certainty": 3.5,
        "percentile": 0.35 if state is UnitState.UNCERTAIN else 0.95,
        "calibration": {
            "activation": 1.5,
            "num_concepts": 39,
            "left_out": ["stone"],
            "strongest": [{"text": "bus", "activation": 2.5}, {"text": "fire", "activation": 1.0}],
            "images": exemplars[:4],
            "activations": [1.0, 2.0, 1.0, 2.0],
            "error": "",
        },
        "auc": 0.75,
        "exemplars": [
            {
                "image": ref,
                "source": ref,
                "box": [4, 8, 24, 40] if n % 2 else None,
                "activation": 3.0 - n / 10,
                "caption": None if n == 9 else caption,
            }
            for n, ref in enumerate(exemplars)
        ],
        "deciles": [
            {
                "image": exemplars[n % 10],
                "decile": n // 2,
                "activation": n / 10,
                "caption": "plain ground" if n < 2 else None,
            }
            for n in range(20)
        ],
        "candidates": [
            _candidate(sample, "plain ground", "caption_phrase", unit, 0),
            _candidate(sample, f"{label} {unit}", "summary", unit, 1),
            {
                **_candidate(sample, "left out", "summary", unit, 2),
                "images": [],
                "activations": [],
                "dropped": "7 drawings, at least 8 are needed",
                "score": None,
                "mean_rank": None,
                "topk_squared_mean": None,
                "image_products": None,
                "probe_correlation": None,
                "auc": None,
            },
        ],
        "tokens": {"num_calls": 5, "num_input_tokens": 900, "num_output_tokens": 40},
        "timings": {"caption": 0.5, "synthesize": 2.0},
    }
    return record


def _candidate(sample: Sample, text: str, origin: str, unit: int, place: int) -> dict[str, Any]:
    refs = [_picture(sample, (20 * n, 200, 60 * place), 64) for n in range(10)]
    return {
        "text": text,
        "origin": origin,
        "prompt": f"one realistic image of {text}",
        "images": refs,
        "activations": [1.0 + place + n / 10 for n in range(10)],
        "dropped": "",
        "score": 1.25 if place else 2.5,
        "ranks": list(range(10)),
        "mean_rank": 4.5 if place else 14.5,
        "squared_mean": 28.5,
        "topk_squared_mean": 6.0 if place else 150.0,
        "image_products": 0.8 if place else 0.5,
        "topk_compare": 1.6,
        "probe_correlation": 0.3 if place else -0.1,
        "auc": 1.0 if place else 0.0,
    }


def _picture(sample: Sample, colour: tuple[int, int, int], side: int) -> str:
    image = Image.new("RGB", (side, side), "white")
    image.paste(colour, (side // 4, side // 4, 3 * side // 4, 3 * side // 4))
    data = encode_png(image)
    ref = "sha256:" + hashlib.sha256(data).hexdigest()
    sample.images[ref] = data
    return ref
