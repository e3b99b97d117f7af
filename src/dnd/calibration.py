"""Is a label better than an unrelated one? Its percentile among a bank of fixed concepts.

A concept score compares the candidates of one unit, so it says nothing about other units, and the
label has already won on the drawings it was selected by. Here the label is drawn afresh, with seeds
that selection has not used, and the unit's mean activation on these drawings is ranked among its
mean activations on the drawings of concepts that are the same for all units:

1. Once per profile: draw the concepts of the bank            -> `bank_plan`
2. Once per layer: measure them for all units of the layer    -> `measure_bank`
3. For each unit: draw its label afresh, measure it, rank it  -> `fresh_plan`, `calibrate_labels`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from dnd import keys, stages
from dnd.chunks import chunks
from dnd.clients import Services
from dnd.errors import DndError, TooFewResults, passing_error
from dnd.profiles import MIN_CONCEPTS
from dnd.rounding import round_digits
from dnd.stages import SETS_PER_CALL, Plan
from dnd.types import ImageSet, Measurement, OrError

NUM_STRONGEST = 5
"""Concepts of the bank that are named with a unit: those that excite it most."""


@dataclass(frozen=True)
class Bank:
    """What the bank does to the layers of a job.

    Attributes:
        concepts: Those that could be drawn, in the order of the bank.
        embeddings_ref: Float32 array artifact (concepts, dimensions) of normalised text embeddings.
        activations_refs: For each layer, in the job's order, a float32 array artifact
            (concepts, units) of mean activations.
    """

    concepts: tuple[str, ...]
    embeddings_ref: str
    activations_refs: tuple[str, ...]


@dataclass(frozen=True)
class LabelDrawn:
    """A label of a unit, drawn afresh."""

    unit: int
    text: str
    drawings: ImageSet


@dataclass(frozen=True)
class BankConcept:
    """A concept of the bank, and a unit's mean activation on its drawings."""

    text: str
    activation: float


@dataclass(frozen=True)
class Calibration:
    """Where a label stands among the concepts of the bank.

    Attributes:
        percentile: Share of the concepts that excite the unit less than its label does, 0 to 1.
        activation: The unit's mean activation on the fresh drawings of its label.
        num_concepts: Concepts that the label was compared with.
        left_out: Concepts of the bank that mean much the same as the label.
        strongest: Of the concepts compared with, those that excite the unit most, strongest first.
        images: References of the fresh drawings.
        activations: The unit's activation on each of them.
    """

    percentile: float
    activation: float
    num_concepts: int
    left_out: tuple[str, ...]
    strongest: tuple[BankConcept, ...]
    images: tuple[str, ...]
    activations: tuple[float, ...]


def bank_plan(plan: Plan) -> Plan:
    """The plan by which concepts of the bank are drawn: no drawing of theirs is a candidate's."""
    return _with_drawings(plan, "bank", plan.profile.calibration.num_bank_images)


def fresh_plan(plan: Plan) -> Plan:
    """The plan by which labels are drawn afresh: with seeds that selection does not use."""
    return _with_drawings(plan, "fresh", plan.profile.calibration.num_images)


def _with_drawings(plan: Plan, purpose: str, num_images: int) -> Plan:
    """As many of the drawings may be missing, in proportion, as of those for selection."""
    settings = plan.profile.synthesis
    synthesis = replace(
        settings,
        seed=keys.call_seed(settings.seed, purpose),
        num_images=num_images,
        min_images=ceil(num_images * settings.min_images / settings.num_images),
    )
    return replace(plan, profile=replace(plan.profile, synthesis=synthesis))


def measure_bank(
    services: Services, plan: Plan, image_sets: Mapping[str, OrError[ImageSet]]
) -> Bank:
    """Measures the bank for all units of the job's layers; concepts without drawings are left out.

    Args:
        image_sets: The drawings of each concept of `plan.bank`, or why there are none.

    Raises:
        TooFewResults: Too few concepts could be drawn and measured.
        DndError: What may succeed later.
    """
    drawn = [(c, s) for c in plan.bank if isinstance(s := image_sets[c], ImageSet)]
    measured = _measure(services, plan, [one for _, one in drawn])
    vectors = _embed(services, plan, [concept for concept, _ in drawn])
    kept: list[tuple[str, tuple[float, ...], list[np.ndarray]]] = []
    for concept, one in drawn:
        measurement, vector = measured[one.key], vectors[concept]
        if passing := passing_error((measurement, vector)):
            raise passing
        if isinstance(measurement, DndError) or isinstance(vector, DndError):
            continue
        arrays = [services.artifacts.get_array(ref) for ref in measurement.activations_refs]
        kept.append((concept, vector, [_mean_of_images(a) for a in arrays]))
    if len(kept) < MIN_CONCEPTS:
        errors = [e for e in (*image_sets.values(), *measured.values()) if isinstance(e, DndError)]
        raise TooFewResults(
            f"{len(kept)} of {len(plan.bank)} concepts of the bank could be drawn and measured, at "
            f"least {MIN_CONCEPTS} are needed: {'; '.join(sorted({e.message for e in errors}))}"[
                :1000
            ]
        )
    layers = zip(*(means for _, _, means in kept), strict=True)
    put = services.artifacts.put_array
    return Bank(
        concepts=tuple(concept for concept, _, _ in kept),
        embeddings_ref=put(np.array([vector for _, vector, _ in kept], dtype=np.float32)),
        activations_refs=tuple(put(np.stack(rows)) for rows in layers),
    )


def calibrate_labels(
    services: Services, plan: Plan, layer: str, labels: Sequence[LabelDrawn], bank: Bank
) -> list[OrError[Calibration]]:
    """The percentile of each label among the concepts of the bank that mean something else."""
    measured = _measure(services, plan, [label.drawings for label in labels])
    vectors = _embed(services, plan, [label.text for label in labels])
    place = plan.layers.index(layer)
    of_bank = np.asarray(services.artifacts.get_array(bank.activations_refs[place]))
    embeddings = np.asarray(services.artifacts.get_array(bank.embeddings_ref))
    results: list[OrError[Calibration]] = []
    for label in labels:
        measurement, vector = measured[label.drawings.key], vectors[label.text]
        if isinstance(measurement, DndError):
            results.append(measurement)
        elif isinstance(vector, DndError):
            results.append(vector)
        else:
            array = services.artifacts.get_array(measurement.activations_refs[place])
            cosines = embeddings @ np.asarray(vector, dtype=np.float32)
            results.append(
                _calibrate(plan, label, np.asarray(array)[:, label.unit], of_bank, cosines, bank)
            )
    return results


def _calibrate(
    plan: Plan,
    label: LabelDrawn,
    activations: np.ndarray,
    of_bank: np.ndarray,
    cosines: np.ndarray,
    bank: Bank,
) -> OrError[Calibration]:
    """One unit's calibration, from its activations (images,) and the bank's (concepts, units)."""
    settings, num_digits = plan.profile.calibration, plan.profile.score.num_digits
    others = np.flatnonzero(cosines <= settings.max_text_cosine)
    if len(others) < MIN_CONCEPTS:
        return TooFewResults(
            f"{len(others)} concepts of the bank mean something else than {label.text!r}, at least "
            f"{MIN_CONCEPTS} are needed."
        )
    mean = _mean_of_images(activations)
    own = float(round_digits(mean, num_digits))
    theirs = round_digits(of_bank[others, label.unit], num_digits)
    strongest = others[np.argsort(-theirs, kind="stable")[:NUM_STRONGEST]]
    return Calibration(
        percentile=percentile_among(own, theirs),
        activation=float(mean),
        num_concepts=len(others),
        left_out=tuple(
            concept
            for concept, cosine in zip(bank.concepts, cosines, strict=True)
            if cosine > settings.max_text_cosine
        ),
        strongest=tuple(
            BankConcept(bank.concepts[i], float(of_bank[i, label.unit])) for i in strongest
        ),
        images=label.drawings.images,
        activations=tuple(float(a) for a in activations),
    )


def _mean_of_images(activations: np.ndarray) -> np.ndarray:
    """The mean over images of float32 (images, …)."""
    return np.asarray(np.mean(activations, axis=0, dtype=np.float64), dtype=np.float32)


def percentile_among(own: float, others: np.ndarray) -> float:
    """Share of `others` (concepts,) below `own`, 0 to 1; equal ones count half."""
    return float(np.mean((others < own) + (others == own) / 2))


def _measure(
    services: Services, plan: Plan, sets: Sequence[ImageSet]
) -> dict[str, OrError[Measurement]]:
    """The measurement of each different set, by its key."""
    different = list({one.key: one for one in sets}.values())
    measured: dict[str, OrError[Measurement]] = {}
    for some in chunks(different, SETS_PER_CALL):
        answers = stages.measure_images(services, plan, some)
        measured.update(zip((one.key for one in some), answers, strict=True))
    return measured


def _embed(
    services: Services, plan: Plan, texts: Sequence[str]
) -> dict[str, OrError[tuple[float, ...]]]:
    """The text embedding of each different text."""
    different = list(dict.fromkeys(texts))
    if not different:
        return {}
    answers = services.scorer.embed_texts(different, plan.digest("scorer"))
    return dict(zip(different, answers, strict=True))
