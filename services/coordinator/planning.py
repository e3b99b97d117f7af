"""From a job's specification to what it is frozen to; everything wrong with it is found here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from dnd.banks import load_bank
from dnd.clients import Services, StageClient
from dnd.concept_sets import CLASSES, COMMON_ENGLISH, NAMES, class_concepts, common_english
from dnd.dissection import load_concepts, save_concepts
from dnd.errors import (
    EmptyProbeSet,
    InvalidInput,
    Overloaded,
    Transient,
    Unavailable,
    UnitOutOfRange,
    UnknownName,
    suggest,
)
from dnd.jobs import Estimate, JobSpec, LayerUnits, Method, StageLoad
from dnd.profiles import Profile, get_profile
from dnd.telemetry import carried
from dnd.types import LayerInfo, ProbeSet, RequestContext
from dnd_services.coordinator.budgets import Price
from dnd_services.coordinator.states import SERVICE_OF
from dnd_services.coordinator.store.jobs import NewLayer

# Lengths by which tokens and bytes are estimated before anything is known of a job's own.
_PROMPT_TOKENS, _CAPTION_TOKENS, _SUMMARY_TOKENS = 300, 15, 12
_PNG_BYTES_PER_PIXEL = 2.0
_EXEMPLAR_BYTES = 100_000
_ACTIVATION_BYTES = 2

_MODEL_SERVICES = ("captioner", "summarizer", "synthesizer", "scorer")


@dataclass(frozen=True)
class PlannedJob:
    """A specification that has been checked against what there is."""

    layers: tuple[NewLayer, ...]
    probe_set: ProbeSet
    profile: Profile
    bank: tuple[str, ...]
    target_digest: str
    method: Method = Method.DND
    concepts_ref: str = ""

    @property
    def num_units(self) -> int:
        return sum(layer.num_units for layer in self.layers)


class Planner:
    """Checks specifications with the help of the stage services.

    Args:
        quick_s: Time for a question that a running service answers at once, seconds.
        last_digests: The weights that the newest job was frozen to, by service, for services that
            have no replica now; None where every service is expected to be up.
    """

    def __init__(
        self,
        services: Services,
        quick_s: float,
        last_digests: Callable[[], Mapping[str, str]] | None = None,
    ) -> None:
        self._services = services
        self._quick_s = quick_s
        self._last_digests = last_digests

    def plan(self, spec: JobSpec, context: RequestContext) -> PlannedJob:
        """Checks a specification and reads the layers and the probe set that it names.

        Raises:
            InvalidInput: A name, unit or setting is wrong; one of its subclasses says which.
            Unavailable: The activations service is not up.
        """
        profile = get_profile(spec.profile, spec.overrides)
        # Percentiles need drawings, of which CLIP-Dissect makes none.
        bank = () if spec.method is Method.CLIP_DISSECT else load_bank(profile.calibration)
        _expect_names(spec)
        infos, target_digest = self.list_layers(spec.model, context)
        layers = tuple(_resolve(one, infos, spec.model) for one in spec.layers)
        client = self._services.for_context(context).activations
        probe_set = client.get_probe_set(spec.probe, profile.index.judge_fraction)
        if probe_set.num_images < 1:
            raise EmptyProbeSet(f"The probe set {spec.probe!r} has no readable image.")
        concepts_ref = self._keep_concepts(spec, profile, infos)
        return PlannedJob(
            layers, probe_set, profile, bank, target_digest, spec.method, concepts_ref
        )

    def _keep_concepts(self, spec: JobSpec, profile: Profile, infos: Sequence[LayerInfo]) -> str:
        """The reference of the concept set that a job names; empty for a job without one.

        Raises:
            UnknownName: There is no such set.
            InvalidInput: The model has no class names, or the profile keeps no activations.
        """
        name = spec.concept_set
        if spec.method is Method.DND and not name:
            return ""
        if not profile.index.keep_matrix:
            raise InvalidInput(
                f"Profile {profile.name!r} does not keep the activations, which labels from a "
                "concept set are computed from: set index.keep_matrix to true."
            )
        artifacts = self._services.artifacts
        if name.startswith("sha256:"):
            load_concepts(artifacts, name)
            artifacts.renew(name)
            return name
        if name in ("", COMMON_ENGLISH):
            return save_concepts(artifacts, common_english())
        if name != CLASSES:
            raise UnknownName(suggest(name, list(NAMES), what="concept set"))
        names = next((one.unit_names for one in reversed(infos) if one.unit_names), ())
        if not names:
            raise InvalidInput(f"The classes of {spec.model!r} have no names: name another set.")
        return save_concepts(artifacts, class_concepts(names))

    def read_digests(self, planned: PlannedJob, context: RequestContext) -> dict[str, str]:
        """The weights behind the services that a job needs now: it is frozen to them.

        Raises:
            Unavailable: A service is not up.
        """
        services = self._services.for_context(context)
        needed = ("scorer",) if planned.method is Method.CLIP_DISSECT else _MODEL_SERVICES

        def digest(name: str) -> str:
            client = replace(getattr(services, name), deadline_s=self._quick_s)
            try:
                return str(client.get_model().digest)
            except Transient as error:
                known = self._last_digests() if self._last_digests else {}
                if name in known:
                    return known[name]
                raise _not_up(name, client, error) from None

        with ThreadPoolExecutor(len(needed)) as pool:
            digests = dict(zip(needed, pool.map(carried(digest), needed), strict=True))
        return {
            "target": planned.target_digest,
            **digests,
            "probe": planned.probe_set.manifest_ref,
        }

    def find_llm(self, planned: PlannedJob, context: RequestContext) -> str:
        """The name of the language model that a job asks; empty for none, or if it is away."""
        if planned.method is Method.CLIP_DISSECT:
            return ""
        client = self._services.for_context(context).summarizer
        try:
            return replace(client, deadline_s=self._quick_s).get_model().name
        except Transient:
            return ""

    def list_models(self, context: RequestContext) -> tuple[list[str], list[str]]:
        """Names of the models and of the probe sets on offer.

        Raises:
            Unavailable: The activations service is not up.
        """
        client = self._services.for_context(context).activations
        try:
            return replace(client, deadline_s=self._quick_s).list_models()
        except Transient as error:
            raise _not_up("activations", client, error) from None

    def list_layers(self, model: str, context: RequestContext) -> tuple[list[LayerInfo], str]:
        """The layers of a model, and the digest of its weights.

        Raises:
            UnknownName: There is no such model.
            Unavailable: The activations service is not up.
        """
        self.list_models(context)  # loading a model may take long, being there does not
        return self._services.for_context(context).activations.list_layers(model)


def estimate(
    planned: PlannedJob,
    times: dict[tuple[str, str], float],
    capacity: dict[str, int],
    price: Price | None = None,
    replicas: Mapping[str, int] | None = None,
) -> Estimate:
    """What a job costs at most, and how long it may take.

    Stages work at the same time, so the slowest one counts; the index and the concept
    set come before them all.

    Args:
        times: Mean seconds of an item by (stage, profile).
        capacity: Tasks at the same time by stage.
        price: Of the language model's tokens; None if that is not known.
        replicas: Those of each service that are known now.
    """
    profile, num_units = planned.profile, planned.num_units
    num = {
        Method.DND: num_units,
        Method.CLIP_DISSECT: 0,
        Method.CASCADE: min(num_units, profile.dissect.budget),
    }[planned.method]
    num_shards = -(-planned.probe_set.num_images // profile.index.shard_images)
    calls = 1 if profile.propose.one_call else profile.propose.num_summaries
    if profile.propose.simplify:
        calls += profile.exemplars.num_exemplars
    num_kinds = profile.facets.max_clusters if profile.facets.enabled else 1
    num_shown = profile.exemplars.num_exemplars + bool(profile.caption.num_labels)
    num_sets = num * num_kinds * profile.propose.max_candidates
    num_drawings = num_sets * profile.synthesis.num_images
    if planned.bank:
        num_drawings += num * profile.calibration.num_images
        num_drawings += len(planned.bank) * profile.calibration.num_bank_images
    items = {
        "index": num_shards,
        "dissect": len(planned.layers) if planned.concepts_ref else 0,
        "exemplars": num,
        "caption": num,
        "summarize": num,
        "synthesize": num_drawings / profile.synthesis.num_images,  # in sets of candidates
        "score": num,
        **({"calibrate": num} if planned.bank else {}),
    }
    seconds = {
        stage: items[stage] * times.get((stage, profile.name), 0.0) / max(capacity.get(stage, 1), 1)
        for stage in items
    }
    known = all((stage, profile.name) in times for stage in items if items[stage])
    busy_s = sum(
        items[stage] * times.get((stage, profile.name), 0.0)
        for stage in items
        if stage != "summarize"
    )
    num_input, num_output = _count_tokens(profile, num * num_kinds)
    before_s = seconds.pop("index") + seconds.pop("dissect")
    return Estimate(
        num_units=num_units,
        num_probe_images=planned.probe_set.num_images,
        num_captions=num * (num_kinds * num_shown + profile.propose.contrast),
        num_llm_calls=num * num_kinds * calls,
        num_drawings=num_drawings,
        duration_s=before_s + max(seconds.values()) if known else 0.0,
        num_skipped_images=planned.probe_set.num_skipped,
        num_input_tokens=num_input,
        num_output_tokens=num_output,
        dollars=price.dollars(num_input, num_output) if price else 0.0,
        has_price=price is not None,
        gpu_hours=busy_s / 3600 if known else 0.0,
        num_stored_bytes=round(
            num_drawings * profile.synthesis.size**2 * _PNG_BYTES_PER_PIXEL
            + num * num_kinds * profile.exemplars.num_exemplars * _EXEMPLAR_BYTES
            + planned.probe_set.num_images * num_units * _ACTIVATION_BYTES
        ),
        stages=tuple(
            StageLoad(
                stage=stage,
                num_items=items[stage],
                item_s=times.get((stage, profile.name), 0.0),
                num_threads=capacity.get(stage, 0),
                num_replicas=(replicas or {}).get(SERVICE_OF[stage], 0),
            )
            for stage in items
        ),
    )


def _count_tokens(profile: Profile, num_parts: int) -> tuple[int, int]:
    """Tokens of prompts and of answers for some units, each kind of images counted."""
    propose, num_captions = profile.propose, profile.exemplars.num_exemplars
    num_calls = 1 if propose.one_call else propose.num_summaries
    num_input = num_calls * (_PROMPT_TOKENS + num_captions * _CAPTION_TOKENS)
    num_output = propose.num_summaries * _SUMMARY_TOKENS
    if propose.simplify:
        num_input += num_captions * (_PROMPT_TOKENS + _CAPTION_TOKENS)
        num_output += num_captions * _CAPTION_TOKENS
    return num_parts * num_input, num_parts * num_output


def _expect_names(spec: JobSpec) -> None:
    if not spec.model:
        raise InvalidInput("The job names no model: expected a name of ListTargets.")
    if not spec.probe:
        raise InvalidInput("The job names no probe set: expected a name of ListTargets.")
    if not spec.layers:
        raise InvalidInput("The job names no layer: expected at least one module path.")
    paths = [one.layer for one in spec.layers]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    if twice:
        raise InvalidInput(f"Layer {twice[0]!r} is given twice: name each layer once.")


def _resolve(asked: LayerUnits, infos: Sequence[LayerInfo], model: str) -> NewLayer:
    info = next((one for one in infos if one.path == asked.layer), None)
    if info is None:
        known = [one.path for one in infos]
        raise UnknownName(suggest(asked.layer, known, what=f"layer of model {model!r} named"))
    if not asked.units:
        return NewLayer(info.path, ((0, info.num_units),))
    for unit in asked.units:
        if not 0 <= unit < info.num_units:
            raise UnitOutOfRange(
                f"Layer {info.path!r} of {model!r} has units 0 to {info.num_units - 1}: "
                f"unit {unit} is not among them."
            )
    return NewLayer(info.path, _ranges(asked))


def _ranges(asked: LayerUnits) -> tuple[tuple[int, int], ...]:
    """Ascending units as [first, after last] pairs."""
    ranges: list[tuple[int, int]] = []
    for unit in asked.units:
        if ranges and unit < ranges[-1][1]:
            raise InvalidInput(
                f"Units of layer {asked.layer!r}: {unit} comes after {ranges[-1][1] - 1}: "
                "expected ascending units, each of them once."
            )
        if ranges and unit == ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], unit + 1)
        else:
            ranges.append((unit, unit + 1))
    return tuple(ranges)


def _not_up(name: str, client: StageClient, error: Transient) -> Unavailable:
    what = "is overloaded" if isinstance(error, Overloaded) else "cannot be reached"
    return Unavailable(
        f"The {name} service at {client.pool.target} {what}, and a job needs it: "
        f"see that it runs, then try again. ({error.message})"
    )
