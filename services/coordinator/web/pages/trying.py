"""Try it: the labelled units that a picture excites, and what drawings of words do to a unit."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import Session

from dnd import stages
from dnd.artifacts import ArtifactStore
from dnd.clients import Services
from dnd.errors import DndError, FailedPrecondition, InvalidInput, Overloaded
from dnd.images import decode_image, encode_png, encode_thumbnail
from dnd.report.scale import Scale
from dnd.stages import Plan
from dnd.types import ImageSet, OrError, Priority, RequestContext
from dnd_services.coordinator.frozen import plan_of
from dnd_services.coordinator.models import JobLayerRow, JobRow, UnitRow
from dnd_services.coordinator.store.reading import read_layers

GRID = 7
SIDE = 256
NUM_SHOWN = 24
LEAST_SHARE = 0.95
MAX_WORDS = 100
MAX_AT_ONCE = 2
_SHOWN_SIDE, _QUALITY = 224, 82
_GREY = (127, 127, 127)
_GLOW = np.array([255, 90, 31], np.float32)
_turns = threading.BoundedSemaphore(MAX_AT_ONCE)


@dataclass(frozen=True)
class Labelled:
    """A labelled unit of a layer."""

    unit: int
    label: str


@dataclass(frozen=True)
class Trial:
    """What is asked about: taken from the record at once, as what follows takes seconds.

    Attributes:
        layers: Layer, its index, and its labelled units.
    """

    job: str
    plan: Plan
    services: Services
    layers: tuple[tuple[str, str, tuple[Labelled, ...]], ...]


@dataclass(frozen=True)
class Lit:
    """A unit that the picture excites.

    Attributes:
        share: Of the probe images that excite it less, 0 to 1.
        activation: As text.
        picture: Data URI: the picture, and over it where covering it lowers the activation.
    """

    layer: str
    unit: int
    label: str
    share: float
    activation: str
    picture: str


@dataclass(frozen=True)
class Drawn:
    """A drawing or an exemplar with the unit's activation; `fraction` is 0 to 1."""

    picture: str
    activation: str
    fraction: float


@dataclass(frozen=True)
class Answer:
    """Drawings of words beside a unit's exemplars, both most activating first."""

    words: str
    drawings: tuple[Drawn, ...]
    exemplars: tuple[Drawn, ...]
    num_above: int


def open_trial(session: Session, job: JobRow, services: Services) -> Trial:
    """What a job's labelled units are tried with.

    Raises:
        FailedPrecondition: The probe set has not been indexed.
    """
    layers = [layer for layer in read_layers(session, job.id) if layer.index_ref]
    if not layers:
        raise FailedPrecondition("The job has not indexed its probe set: try again once it has.")
    context = RequestContext(tenant=job.tenant, job=job.id, priority=Priority.INTERACTIVE)
    return Trial(
        job.id,
        plan_of(job),
        services.for_context(context),
        tuple((layer.layer, layer.index_ref, _labelled(session, layer)) for layer in layers),
    )


def _labelled(session: Session, layer: JobLayerRow) -> tuple[Labelled, ...]:
    rows = session.execute(
        select(UnitRow.unit, UnitRow.labels)
        .where(UnitRow.job_id == layer.job_id, UnitRow.place == layer.place)
        .order_by(UnitRow.ordinal)
    )
    return tuple(Labelled(unit, labels[0]) for unit, labels in rows if labels)


def light_up(trial: Trial, data: bytes) -> list[Lit]:
    """The labelled units that a picture excites more than 95 % of the probe images, at most 24.

    Where a unit looks is measured by covering: the picture is shown once for each square of a grid
    that is covered with grey, and the map is by how much that lowers the activation.

    Args:
        data: An encoded image.

    Raises:
        BadImage: It cannot be read.
        Overloaded: Others are trying something.
    """
    image = decode_image(data)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    artifacts = trial.services.artifacts
    refs = tuple(artifacts.put_bytes(encode_png(one)) for one in (image, *_covered(image)))
    names = [layer for layer, _, units in trial.layers if units]
    with _turn():
        measured = _good(
            trial.services.activations.measure_images(
                trial.plan.model,
                names,
                [ImageSet("", refs)],
                trial.plan.profile.index.pooling,
                0,
                trial.plan.digest("target"),
            )
        )
        found: list[tuple[float, Lit]] = []
        for layer, index_ref, units in trial.layers:
            if not units:
                continue
            values = artifacts.get_array(measured.activations_refs[names.index(layer)])
            probe = _probe_activations(trial, index_ref)
            found += _excited(image, layer, units, np.asarray(values), probe)
    return [lit for _, lit in sorted(found, key=lambda pair: -pair[0])[:NUM_SHOWN]]


def _probe_activations(trial: Trial, index_ref: str) -> np.ndarray:
    """Activations on probe images, (units, images)."""
    index = trial.services.activations.get_index(index_ref)
    for ref in (index.judge_ref, index.select_ref):
        if ref and (matrix := trial.services.artifacts.get_array(ref)).shape[1]:
            return matrix
    raise FailedPrecondition("The index of this job has kept no activations to compare with.")


def _excited(
    image: Image.Image,
    layer: str,
    units: Sequence[Labelled],
    values: np.ndarray,
    probe: np.ndarray,
) -> Iterator[tuple[float, Lit]]:
    """Units of a layer with their standard scores.

    Args:
        values: Activations (1 + squares, units); the first on the picture as it is.
        probe: Activations on probe images, (units, images).
    """
    numbers = [one.unit for one in units]
    own = values[:, numbers]
    before = np.asarray(probe[numbers], np.float32)
    shares = (before < own[0][:, None]).mean(1)
    scores = (own[0] - before.mean(1)) / np.maximum(before.std(1), 1e-6)
    strongest = np.argsort(-scores, kind="stable")[:NUM_SHOWN]
    for place in strongest:
        if shares[place] < LEAST_SHARE:
            continue
        drops = np.maximum(own[0, place] - own[1:, place], 0).reshape(GRID, GRID)
        one = units[place]
        activation = float(own[0, place])
        yield (
            float(scores[place]),
            Lit(
                layer,
                one.unit,
                one.label,
                float(shares[place]),
                Scale.of([activation]).text(activation),
                _uri(_glowing(image, drops)),
            ),
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
    shown = image.copy()
    shown.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE), Image.Resampling.LANCZOS)
    highest = float(drops.max())
    scaled = drops / highest if highest > 0 else np.zeros_like(drops)
    heat = Image.fromarray((255 * scaled).astype(np.uint8)).resize(
        shown.size, Image.Resampling.BICUBIC
    )
    weight = np.asarray(heat, np.float32)[..., None] / 255
    pixels = np.asarray(shown, np.float32)
    dimmed = pixels * 0.45 + 0.55 * 235
    mixed = dimmed * (1 - weight) + (pixels * 0.62 + _GLOW * 0.38) * weight
    return Image.fromarray(mixed.astype(np.uint8))


def draw_words(
    trial: Trial, layer: str, unit: int, words: str, record: Mapping[str, Any]
) -> Answer:
    """Drawings of words with a unit's activation on each, beside its exemplars.

    Raises:
        InvalidInput: No words, or too many.
        Overloaded: Others are trying something.
    """
    text = " ".join(words.split())
    if not 1 <= len(text) <= MAX_WORDS or not text.isprintable():
        raise InvalidInput(f"The words have {len(text)} characters: expected 1 to {MAX_WORDS}.")
    plan, services = trial.plan, trial.services
    with _turn():
        drawn = _good(stages.synthesize_images(services, plan, [stages.prompt_for(plan, text)]))
        measured = _good(stages.measure_images(services, plan, [drawn]))
    values = services.artifacts.get_array(measured.activations_refs[plan.layers.index(layer)])
    pairs = sorted(
        zip(drawn.images, map(float, values[:, unit]), strict=True), key=lambda pair: -pair[1]
    )
    exemplars = [(one["image"], one["activation"]) for one in record["exemplars"]]
    scale = Scale.of([value for _, value in (*pairs, *exemplars)])
    weakest = min((value for _, value in exemplars), default=float("inf"))
    return Answer(
        text,
        _drawn(services.artifacts, pairs, scale),
        _drawn(services.artifacts, exemplars, scale),
        sum(value >= weakest for _, value in pairs),
    )


def _drawn(
    artifacts: ArtifactStore, pairs: Sequence[tuple[str, float]], scale: Scale
) -> tuple[Drawn, ...]:
    return tuple(
        Drawn(
            _uri(decode_image(artifacts.get_bytes(ref))), scale.text(value), scale.fraction(value)
        )
        for ref, value in pairs
    )


def _uri(image: Image.Image) -> str:
    data = encode_thumbnail(image, _SHOWN_SIDE, _QUALITY)
    return "data:image/webp;base64," + base64.b64encode(data).decode()


def _good(answers: Sequence[OrError[Any]]) -> Any:
    (answer,) = answers
    if isinstance(answer, DndError):
        raise answer
    return answer


@contextmanager
def _turn() -> Iterator[None]:
    """One of the few who may try something at the same time."""
    if not _turns.acquire(blocking=False):
        raise Overloaded("Others are trying something: try again in a few seconds.")
    try:
        yield
    finally:
        _turns.release()
