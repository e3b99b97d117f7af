"""Try it: the labelled units that a picture excites, and what drawings of words do to a unit."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import Session

from dnd import stages
from dnd.artifacts import ArtifactStore
from dnd.clients import Services
from dnd.errors import DndError, FailedPrecondition, InvalidInput, Overloaded
from dnd.images import decode_image, encode_png, encode_thumbnail
from dnd.stages import Plan
from dnd.trials import ExcitedUnit, MeasuredImage, TriedWords
from dnd.types import ImageSet, OrError, Priority, RequestContext
from dnd_services.coordinator.frozen import plan_of
from dnd_services.coordinator.models import JobLayerRow, JobRow, UnitRow
from dnd_services.coordinator.store.reading import read_layers

T = TypeVar("T")
GRID = 7
SIDE = 256
NUM_SHOWN = 24
LEAST_SHARE = 0.95
MAX_WORDS = 100
MAX_AT_ONCE = 2
SHOWN_SIDE = 320
_QUALITY = 82
_GREY = (127, 127, 127)
_GLOW = np.array([255, 90, 31], np.float32)
_turns = threading.BoundedSemaphore(MAX_AT_ONCE)


@dataclass(frozen=True)
class Labelled:
    """A labelled unit of a layer."""

    unit: int
    label: str


@dataclass(frozen=True)
class LabelledLayer:
    """A layer with labelled units."""

    layer: str
    index_ref: str
    units: tuple[Labelled, ...]


@dataclass(frozen=True)
class Trial:
    """What a job's units are tried with."""

    plan: Plan
    services: Services


@dataclass(frozen=True)
class Lit:
    """A unit that the picture excites.

    Attributes:
        share: Of the probe images that excite it less, 0 to 1.
        score: Distance from the mean of the probe images, in standard deviations.
        probe_mean: Of its activations on the probe images.
        drops: (GRID, GRID) by how much covering each square lowers the activation, >= 0.
    """

    layer: str
    unit: int
    label: str
    activation: float
    share: float
    score: float
    probe_mean: float
    drops: np.ndarray


@contextmanager
def turn() -> Iterator[None]:
    """One of the few who may try something at the same time.

    Raises:
        Overloaded: There are too many.
    """
    if not _turns.acquire(blocking=False):
        raise Overloaded("Others are trying something: try again in a few seconds.")
    try:
        yield
    finally:
        _turns.release()


def open_trial(session: Session, job: JobRow, services: Services) -> Trial:
    """What a job's units are tried with.

    Raises:
        FailedPrecondition: The probe set has not been indexed.
    """
    if not any(layer.index_ref for layer in read_layers(session, job.id)):
        raise FailedPrecondition("The job has not indexed its probe set: try again once it has.")
    context = RequestContext(tenant=job.tenant, job=job.id, priority=Priority.INTERACTIVE)
    return Trial(plan_of(job), services.for_context(context))


def labelled_layers(session: Session, job: JobRow) -> list[LabelledLayer]:
    """The labelled units of a job: one read of all its units."""
    layers = [
        LabelledLayer(layer.layer, layer.index_ref, _labelled(session, layer))
        for layer in read_layers(session, job.id)
    ]
    return [layer for layer in layers if layer.units]


def _labelled(session: Session, layer: JobLayerRow) -> tuple[Labelled, ...]:
    rows = session.execute(
        select(UnitRow.unit, UnitRow.labels)
        .where(UnitRow.job_id == layer.job_id, UnitRow.place == layer.place)
        .order_by(UnitRow.ordinal)
    )
    return tuple(Labelled(unit, labels[0]) for unit, labels in rows if labels)


def shrink(data: bytes) -> Image.Image:
    """A picture from a stranger, as it is shown to the network.

    Raises:
        BadImage: It cannot be read.
    """
    image = decode_image(data)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image


def light_up(trial: Trial, layers: Sequence[LabelledLayer], image: Image.Image) -> list[Lit]:
    """The labelled units that a picture excites more than 95 % of the probe images, at most 24.

    Where a unit looks is measured by covering: the picture is shown once for each square of a grid
    that is covered with grey, and the map is by how much that lowers the activation.

    Args:
        image: As of `shrink`.
    """
    if not layers:
        return []
    artifacts = trial.services.artifacts
    refs = tuple(artifacts.put_bytes(encode_png(one)) for one in (image, *_covered(image)))
    measured = _good(
        trial.services.activations.measure_images(
            trial.plan.model,
            [layer.layer for layer in layers],
            [ImageSet("", refs)],
            trial.plan.profile.index.pooling,
            0,
            trial.plan.digest("target"),
        )
    )
    found: list[Lit] = []
    for layer, ref in zip(layers, measured.activations_refs, strict=True):
        probe = _probe_activations(trial, layer.index_ref)
        found += _excited(layer, np.asarray(artifacts.get_array(ref)), probe)
    return sorted(found, key=lambda lit: -lit.score)[:NUM_SHOWN]


def _probe_activations(trial: Trial, index_ref: str) -> np.ndarray:
    """Activations on probe images, (units, images)."""
    index = trial.services.activations.get_index(index_ref)
    for ref in (index.judge_ref, index.select_ref):
        if ref and (matrix := trial.services.artifacts.get_array(ref)).shape[1]:
            return matrix
    raise FailedPrecondition("The index of this job has kept no activations to compare with.")


def _excited(layer: LabelledLayer, values: np.ndarray, probe: np.ndarray) -> Iterator[Lit]:
    """Units of a layer that the picture excites, most unusual first, at most NUM_SHOWN.

    Args:
        values: Activations (1 + squares, units); the first on the picture as it is.
        probe: Activations on probe images, (units, images).
    """
    numbers = [one.unit for one in layer.units]
    own = values[:, numbers]
    before = np.asarray(probe[numbers], np.float32)
    means = before.mean(1)
    shares = (before < own[0][:, None]).mean(1)
    scores = (own[0] - means) / np.maximum(before.std(1), 1e-6)
    excited = np.flatnonzero(shares >= LEAST_SHARE)
    for place in excited[np.argsort(-scores[excited], kind="stable")[:NUM_SHOWN]]:
        yield Lit(
            layer.layer,
            layer.units[place].unit,
            layer.units[place].label,
            float(own[0, place]),
            float(shares[place]),
            float(scores[place]),
            float(means[place]),
            np.maximum(own[0, place] - own[1:, place], 0).reshape(GRID, GRID),
        )


def excited_unit(lit: Lit, image: Image.Image, exemplars: Sequence[float]) -> ExcitedUnit:
    """What is answered of a unit that a picture excites.

    Args:
        image: The picture.
        exemplars: Activations on the unit's exemplars.
    """
    span = sum(exemplars) / len(exemplars) - lit.probe_mean if exemplars else 0.0
    return ExcitedUnit(
        lit.layer,
        lit.unit,
        lit.label,
        lit.activation,
        lit.share,
        min(exemplars) if exemplars else None,
        max(exemplars) if exemplars else None,
        (lit.activation - lit.probe_mean) / span if span > 0 else None,
        _shown(_glowing(image, lit.drops)),
    )


def _covered(image: Image.Image) -> Iterator[Image.Image]:
    """The picture once for each square of the grid, row by row, with that square grey."""
    columns = [round(image.width * place / GRID) for place in range(GRID + 1)]
    rows = [round(image.height * place / GRID) for place in range(GRID + 1)]
    for row in range(GRID):
        for column in range(GRID):
            covered = image.copy()
            covered.paste(_GREY, (columns[column], rows[row], columns[column + 1], rows[row + 1]))
            yield covered


def _glowing(image: Image.Image, drops: np.ndarray) -> Image.Image:
    """The picture, dimmed where covering it changes nothing."""
    highest = float(drops.max())
    scaled = drops / highest if highest > 0 else np.zeros_like(drops)
    heat = Image.fromarray((255 * scaled).astype(np.uint8)).resize(
        image.size, Image.Resampling.BICUBIC
    )
    weight = np.asarray(heat, np.float32)[..., None] / 255
    pixels = np.asarray(image, np.float32)
    dimmed = pixels * 0.45 + 0.55 * 235
    mixed = dimmed * (1 - weight) + (pixels * 0.62 + _GLOW * 0.38) * weight
    return Image.fromarray(mixed.astype(np.uint8))


def check_words(words: str) -> str:
    """Words as they are drawn.

    Raises:
        InvalidInput: No words, or too many.
    """
    text = " ".join(words.split())
    if not 1 <= len(text) <= MAX_WORDS or not text.isprintable():
        raise InvalidInput(
            f"The words have {len(text)} characters: expected 1 to {MAX_WORDS} that can be printed."
        )
    return text


def draw(trial: Trial, prompt: str) -> ImageSet:
    """Drawings of a prompt, by the settings of the job."""
    return _good(stages.synthesize_images(trial.services, trial.plan, [prompt]))


def measure_drawings(
    trial: Trial,
    unit: tuple[str, int],
    words: str,
    drawn: ImageSet,
    exemplars: Sequence[tuple[str, float]],
) -> TriedWords:
    """Drawings of words with a unit's activation on each, beside its exemplars.

    Args:
        unit: Layer and index.
        exemplars: References of the unit's exemplars with its activations, strongest first.
    """
    plan, services = trial.plan, trial.services
    layer, number = unit
    measured = _good(stages.measure_images(services, plan, [drawn]))
    values = services.artifacts.get_array(measured.activations_refs[plan.layers.index(layer)])
    pairs = sorted(
        zip(drawn.images, map(float, values[:, number]), strict=True), key=lambda pair: -pair[1]
    )
    weakest = min((value for _, value in exemplars), default=float("inf"))
    return TriedWords(
        words,
        _measured(services.artifacts, pairs),
        _measured(services.artifacts, exemplars),
        sum(value >= weakest for _, value in pairs),
    )


def _measured(
    artifacts: ArtifactStore, pairs: Sequence[tuple[str, float]]
) -> tuple[MeasuredImage, ...]:
    return tuple(
        MeasuredImage(_shown(decode_image(artifacts.get_bytes(ref))), value) for ref, value in pairs
    )


def _shown(image: Image.Image) -> bytes:
    return encode_thumbnail(image, SHOWN_SIDE, _QUALITY)


def _good(answers: Sequence[OrError[T]]) -> T:
    """The one answer. Raises its error."""
    (answer,) = answers
    if isinstance(answer, DndError):
        raise answer
    return answer
