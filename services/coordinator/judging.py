"""What an evaluation measures through the services: images, embeddings, drawings, activations.

Nothing here decides anything: `dnd.evaluation` has the metrics, `evaluating` puts both together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from dnd import keys, stages
from dnd.chunks import chunks
from dnd.clients import ScorerClient, Services
from dnd.errors import DndError, FailedPrecondition, TooFewResults, Transient
from dnd.evaluation.cosy import cosy_auc, cosy_mad
from dnd.evaluation.simulation import Floats
from dnd.manifest import Manifest
from dnd.profiles import IndexSettings
from dnd.stages import Plan
from dnd.telemetry import carried
from dnd.types import Drawing, ImageSet, LayerIndex, OrError

MIN_IMAGES = 10
MAX_IMAGES = 10_000
TEXTS_PER_CALL = 256
IMAGES_PER_CALL = 64
DRAWINGS_PER_CALL = 64
LABELS_AT_ONCE = 3
MIN_DRAWINGS = 2
PATIENCE_S = 120.0

T = TypeVar("T")
Watcher = Callable[[str, int, int], None]


@dataclass(frozen=True)
class JudgeImages:
    """Images that selection has not seen, and what the units do on them.

    Attributes:
        refs: References of the images.
        activations: (units, images) float32, in the order of the units asked for.
        probe: Name of the probe set.
        num_found: Images before a sample was taken.
    """

    refs: list[str]
    activations: Floats
    probe: str
    num_found: int


def held_out_images(
    services: Services,
    plan: Plan,
    indices: Mapping[str, LayerIndex],
    units: Sequence[tuple[str, int]],
    probe: str,
    max_images: int,
) -> JudgeImages:
    """The judge half of the job's probe set.

    Args:
        indices: Index of each layer.
        units: Layer and index of each unit.
        probe: Name of the job's probe set.

    Raises:
        FailedPrecondition: It is empty, or so small that it says nothing.
    """
    manifest = Manifest.load(services.artifacts, plan.manifest_ref)
    numbers = manifest.judge_indices()
    matrices = {
        layer: services.artifacts.get_array(index.judge_ref)
        for layer, index in indices.items()
        if index.judge_ref
    }
    if len(numbers) < MIN_IMAGES or len(matrices) < len(indices):
        raise FailedPrecondition(
            f"The judge half of {probe!r} has {len(numbers)} images: an evaluation needs at least "
            f"{MIN_IMAGES} that selection has not seen. Name another probe set (--probe), or run a "
            f"job that holds some out (--set index.judge_fraction=0.2; this one's is "
            f"{plan.profile.index.judge_fraction})."
        )
    chosen = _even_sample(len(numbers), max_images)
    activations = _rows(matrices, units, chosen)
    return JudgeImages(manifest.refs(numbers[chosen]), activations, probe, len(numbers))


def other_images(
    services: Services,
    plan: Plan,
    units: Sequence[tuple[str, int]],
    probe: str,
    max_images: int,
    watch: Watcher,
) -> JudgeImages:
    """All images of another probe set but those that selection has seen, indexed for this.

    Raises:
        UnknownName: There is no such probe set.
        FailedPrecondition: Selection has seen its images.
    """
    found = services.activations.get_probe_set(probe, 0.0)
    layers = tuple(dict.fromkeys(layer for layer, _ in units))
    settings = IndexSettings(
        pooling=plan.profile.index.pooling,
        top_k=11,
        num_sample=0,
        judge_fraction=0.0,
        keep_matrix=True,
        shard_images=plan.profile.index.shard_images,
    )
    asked = replace(
        plan,
        layers=layers,
        manifest_ref=found.manifest_ref,
        profile=replace(plan.profile, index=settings),
    )
    shards = stages.plan_shards(found, asked.profile)
    refs = []
    for number, (first, num_images) in enumerate(shards):
        watch("index", number, len(shards))
        refs.append(patiently(partial(stages.index_shard, services, asked, first, num_images)))
    matrices = {
        index.layer: services.artifacts.get_array(index.select_ref)
        for index in stages.merge_shards(services, refs)
    }
    seen = Manifest.load(services.artifacts, plan.manifest_ref)
    known = set(seen.refs(seen.select_indices()))
    all_refs = Manifest.load(services.artifacts, found.manifest_ref).refs()
    unseen = np.array([number for number, ref in enumerate(all_refs) if ref not in known], np.intp)
    if len(unseen) < MIN_IMAGES:
        raise FailedPrecondition(
            f"{probe!r} has {len(unseen)} images that the job's labels were not selected on: an "
            f"evaluation needs at least {MIN_IMAGES}."
        )
    chosen = unseen[_even_sample(len(unseen), max_images)]
    activations = _rows(matrices, units, chosen)
    return JudgeImages([all_refs[number] for number in chosen], activations, probe, len(unseen))


def select_images(
    services: Services,
    plan: Plan,
    indices: Mapping[str, LayerIndex],
    units: Sequence[tuple[str, int]],
    max_images: int,
) -> tuple[list[str], Floats] | None:
    """A sample of the select half with the units' activations; None if those were not kept."""
    matrices = {
        layer: services.artifacts.get_array(index.select_ref)
        for layer, index in indices.items()
        if index.select_ref
    }
    if len(matrices) < len(indices):
        return None
    manifest = Manifest.load(services.artifacts, plan.manifest_ref)
    numbers = manifest.select_indices()
    chosen = _even_sample(len(numbers), max_images)
    return manifest.refs(numbers[chosen]), _rows(matrices, units, chosen)


def embed_texts(judge: ScorerClient, texts: Sequence[str], watch: Watcher) -> dict[str, Floats]:
    """The judge's embedding of each text."""
    vectors: list[Floats] = []
    for some in chunks(texts, TEXTS_PER_CALL):
        watch("embed", len(vectors), len(texts))
        vectors += _good(patiently(partial(judge.embed_texts, some)))
    return dict(zip(texts, vectors, strict=True))


def embed_images(judge: ScorerClient, refs: Sequence[str], watch: Watcher) -> Floats:
    """The judge's embeddings (images, dim) float32."""
    vectors: list[Floats] = []
    for some in chunks(refs, IMAGES_PER_CALL):
        watch("embed", len(vectors), len(refs))
        vectors += _good(patiently(partial(judge.embed_images, some)))
    return np.stack(vectors)


def draw_labels(
    services: Services,
    plan: Plan,
    labels: Sequence[str],
    num_drawings: int,
    seed: int,
    units: Sequence[tuple[str, int]],
    control: Floats,
    watch: Watcher,
) -> dict[str, OrError[tuple[Floats, Floats]]]:
    """CoSy's AUC and MAD of every label on every unit, or why a label could not be drawn.

    Seeds are of a space of their own: no stage of the method has seen these drawings.

    Args:
        control: (units, images) activations on the judge images.
    """
    ordered = np.sort(np.asarray(control, np.float32), axis=1)

    def judge(label: str) -> OrError[tuple[Floats, Floats]]:
        answers = _draw(services, plan, label, num_drawings, seed)
        images = [ref for ref in answers if isinstance(ref, str)]
        if len(images) < MIN_DRAWINGS:
            reasons = [error.message for error in answers if isinstance(error, DndError)]
            return TooFewResults(f"{label!r}: {reasons[0] if reasons else 'no drawing'}")
        key = keys.stage_key("evaluate", "drawings", images)
        drawn = _measure(services, plan, ImageSet(key, tuple(images)), units)
        return cosy_auc(drawn, ordered), cosy_mad(drawn, control)

    found: dict[str, OrError[tuple[Floats, Floats]]] = {}
    with ThreadPoolExecutor(LABELS_AT_ONCE, thread_name_prefix="draw") as pool:
        watch("draw", 0, len(labels))
        for number, (label, scores) in enumerate(
            zip(labels, pool.map(carried(judge), labels), strict=True), start=1
        ):
            watch("draw", number, len(labels))
            found[label] = scores
    return found


def _draw(services: Services, plan: Plan, label: str, num: int, seed: int) -> list[OrError[str]]:
    """References of fresh drawings of a label, or why one failed."""
    prompt = stages.prompt_for(plan, label)
    drawings = [Drawing(prompt, keys.call_seed(seed, "evaluate", prompt, n)) for n in range(num)]
    refs: list[OrError[str]] = []
    for some in chunks(drawings, DRAWINGS_PER_CALL):
        settings, digest = plan.profile.synthesis, plan.digest("synthesizer")
        answers = patiently(partial(services.synthesizer.synthesize_images, some, settings, digest))
        refs += answers
    return refs


def _measure(
    services: Services, plan: Plan, images: ImageSet, units: Sequence[tuple[str, int]]
) -> Floats:
    """(images, units) activations."""
    (answer,) = patiently(partial(stages.measure_images, services, plan, [images]))
    if isinstance(answer, DndError):
        raise answer
    matrices = {
        layer: services.artifacts.get_array(ref)
        for layer, ref in zip(plan.layers, answer.activations_refs, strict=True)
    }
    return np.stack([matrices[layer][:, unit] for layer, unit in units], axis=1)


def patiently(call: Callable[[], T]) -> T:
    """What `call` gives; repeated for a while as long as its failure may pass."""
    until = time.monotonic() + PATIENCE_S
    pause = 0.5
    while True:
        try:
            return call()
        except Transient as error:
            wait = max(error.retry_after_s or 0.0, pause)
            if time.monotonic() + wait > until:
                raise
            time.sleep(wait)
            pause = min(2 * pause, 10.0)


def _good(answers: Sequence[OrError[tuple[float, ...]]]) -> list[Floats]:
    """Vectors; an item's error is the whole evaluation's."""
    for answer in answers:
        if isinstance(answer, DndError):
            raise answer
    return [np.asarray(answer, np.float32) for answer in answers]


def _even_sample(num: int, limit: int) -> np.ndarray:
    """Places of `limit` items spread evenly over `num`; all of them if there are no more."""
    limit = limit or MAX_IMAGES
    return np.arange(num) if num <= limit else np.arange(limit) * num // limit


def _rows(
    matrices: Mapping[str, np.ndarray], units: Sequence[tuple[str, int]], images: np.ndarray
) -> Floats:
    """(units, images) float32 of matrices (units of the layer, images)."""
    rows = [np.asarray(matrices[layer][unit], np.float32)[images] for layer, unit in units]
    return np.stack(rows)
