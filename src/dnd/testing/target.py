"""A fake of the activations service: networks without weights, probe sets without files."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from dnd.artifacts import ArtifactStore, reference_of
from dnd.convert import enum_value, error_message
from dnd.errors import (
    EmptyProbeSet,
    InvalidInput,
    NotFound,
    UnitOutOfRange,
    UnknownName,
    suggest,
)
from dnd.keys import digest_of
from dnd.manifest import Manifest
from dnd.serving.inputs import check_count, check_digest
from dnd.testing.faults import Faults, rpc
from dnd.testing.values import draw_picture, draw_vector, number
from dnd.types import UnitActivity
from dnd.v1 import activations_pb2 as pb2
from dnd.v1 import activations_pb2_grpc, types_pb2

MODELS = {
    "tiny": {"features.conv": 40, "features.norm": 12, "classifier": 10},
    "broad": {"block": 208},
    "wide": {"encoder": 1_000_000},
}
PROBES = {"shapes": 120, "photos": 2_000, "empty": 0}
ACTIVITY = types_pb2.DESCRIPTOR.enum_types_by_name["UnitActivity"]
_MODULES = {"classifier": ("Linear", pb2.LAYER_KIND_LINEAR)}
_SOURCES_OF_SPARSE = {15: 4, 31: 2}
_NUM_TOP = 60
_MOST_KEPT = 4096
"""Activations of layers with more units than this are made up and not kept."""
_MOST_DRAWN = 200
"""Probe sets with more images than this have a manifest and no images."""


def activity_of(unit: int) -> UnitActivity:
    """How a unit of a fake network responds: of every 16, one is dead, one tied, one sparse."""
    special = {13: UnitActivity.DEAD, 14: UnitActivity.TIED, 15: UnitActivity.SPARSE}
    return special.get(unit % 16, UnitActivity.LIVE)


def num_exemplars_of(unit: int, num: int) -> int:
    """How many exemplars a unit of a fake network has, if up to `num` are asked for."""
    activity = activity_of(unit)
    if activity in (UnitActivity.DEAD, UnitActivity.TIED):
        return 0
    return min(num, _SOURCES_OF_SPARSE[unit % 32]) if activity is UnitActivity.SPARSE else num


class FakeActivations(activations_pb2_grpc.ActivationsServiceServicer):
    """The target network. Items of its faults are units (exemplars) and keys of sets (measuring).

    Of two sparse units one has four images to be labelled from, the other one only two.
    """

    def __init__(self, artifacts: ArtifactStore) -> None:
        self.artifacts = artifacts
        self.faults = Faults()
        self.digest = digest_of("fake", "target")

    @rpc
    def ListModels(self, request: pb2.ListModelsRequest) -> pb2.ListModelsResponse:
        return pb2.ListModelsResponse(models=sorted(MODELS), probes=sorted(PROBES))

    @rpc
    def ListLayers(self, request: pb2.ListLayersRequest) -> pb2.ListLayersResponse:
        layers = []
        for path, num_units in _layers(request.model).items():
            module, kind = _MODULES.get(path, ("Conv2d", pb2.LAYER_KIND_CONV))
            linear = kind == pb2.LAYER_KIND_LINEAR
            layers.append(
                pb2.LayerInfo(
                    path=path,
                    module=module,
                    kind=kind,
                    num_units=num_units,
                    output_shape=[num_units] if linear else [num_units, 4, 4],
                    unit_names=[f"class {n}" for n in range(num_units)] if linear else [],
                )
            )
        return pb2.ListLayersResponse(layers=layers, model_digest=self.digest)

    @rpc
    def GetProbeSet(self, request: pb2.GetProbeSetRequest) -> pb2.GetProbeSetResponse:
        refs: list[str] = []
        for name in request.probe.split("+"):
            if name not in PROBES:
                raise UnknownName(suggest(name, sorted(PROBES), what="probe set"))
            refs += self._probe_pictures(name)
        if not refs:
            raise EmptyProbeSet(f"The probe set {request.probe!r} has no readable image.")
        digests = np.array([list(bytes.fromhex(ref[7:])) for ref in sorted(refs)], np.uint8)
        num_judge = int(len(refs) * request.judge_fraction)
        manifest = Manifest(digests, np.arange(len(refs)) < num_judge)
        return pb2.GetProbeSetResponse(
            manifest_ref=manifest.save(self.artifacts),
            num_images=len(refs),
            num_select=len(refs) - num_judge,
            num_skipped=2,
            skipped_reasons=["broken.png: no image", "note.txt: no image"],
        )

    def _probe_pictures(self, name: str) -> list[str]:
        """References of a probe set's images; those of a large one are not in the store."""
        num = PROBES[name]
        if num > _MOST_DRAWN:
            return [reference_of(f"{name} {number_}".encode()) for number_ in range(num)]
        return [self._picture("probe", name, number_).ref for number_ in range(num)]

    @rpc
    def IndexShard(self, request: pb2.IndexShardRequest) -> pb2.IndexShardResponse:
        check_digest(request.model_digest, self.digest)
        for layer in request.layers:
            num_units_of(request.model, layer)
        num_images = len(Manifest.load(self.artifacts, request.manifest_ref))
        last = request.first_image + request.num_images
        if request.num_images < 1 or last > num_images:
            raise InvalidInput(
                f"The shard ends at image {last}: the probe set has {num_images} images."
            )
        shard = {
            "model": request.model,
            "layers": list(request.layers),
            "manifest": request.manifest_ref,
            "keep_matrix": request.settings.keep_matrix,
            "first": request.first_image,
            "last": last,
        }
        return pb2.IndexShardResponse(shard_ref=self._write(shard))

    @rpc
    def MergeShards(self, request: pb2.MergeShardsRequest) -> pb2.MergeShardsResponse:
        check_count("shards", len(request.shard_refs), 1, 65_536)
        shards = sorted((self._read(ref) for ref in request.shard_refs), key=lambda s: s["first"])
        ends = [0, *(shard["last"] for shard in shards)]
        num_images = len(Manifest.load(self.artifacts, shards[0]["manifest"]))
        if ends[:-1] != [shard["first"] for shard in shards] or ends[-1] != num_images:
            raise InvalidInput("The shards do not cover the probe set once.")
        shared = {name: shards[0][name] for name in ("model", "manifest", "keep_matrix")}
        return pb2.MergeShardsResponse(
            layers=[self._describe({**shared, "layer": layer}) for layer in shards[0]["layers"]]
        )

    @rpc
    def GetIndex(self, request: pb2.GetIndexRequest) -> pb2.GetIndexResponse:
        return pb2.GetIndexResponse(index=self._describe(self._read(request.index_ref)))

    def _describe(self, index: dict[str, Any]) -> pb2.LayerIndex:
        num_units = num_units_of(index["model"], index["layer"])
        kept = num_units <= _MOST_KEPT
        return pb2.LayerIndex(
            layer=index["layer"],
            index_ref=self._write(index),
            activities=_activities(num_units),
            manifest_ref=index["manifest"],
            select_ref=self._matrix(index, "select") if kept and index["keep_matrix"] else "",
            judge_ref=self._matrix(index, "judge") if kept else "",
        )

    def _matrix(self, index: dict[str, Any], half: str) -> str:
        """Activations of all units over one half, those of dead ones all alike."""
        rows = [
            self._activations(index, unit, half)
            for unit in range(num_units_of(index["model"], index["layer"]))
        ]
        return self.artifacts.put_array(np.stack(rows).astype(np.float16))

    def _activations(self, index: dict[str, Any], unit: int, half: str) -> np.ndarray:
        judge = Manifest.load(self.artifacts, index["manifest"]).judge
        num = int((judge if half == "judge" else ~judge).sum())
        values = draw_vector(num, index["model"], index["layer"], unit, half)
        return values * 0 if activity_of(unit) is UnitActivity.DEAD else values

    @rpc
    def ListTopImages(self, request: pb2.ListTopImagesRequest) -> pb2.ListTopImagesResponse:
        check_count("units", len(request.units), 1, 256)
        index = self._read(request.index_ref)
        listed = []
        for unit in request.units:
            _check_unit(index, unit)
            sources = self._sources(index, unit)
            listed.append(
                pb2.TopImages(
                    unit=unit,
                    sources=sources,
                    activations=[10.0 - 0.1 * place for place in range(len(sources))],
                    median=0.0,
                )
            )
        return pb2.ListTopImagesResponse(units=listed)

    def _sources(self, index: dict[str, Any], unit: int) -> list[types_pb2.Image]:
        """The images that a unit responds to, best first, each once."""
        activity = activity_of(unit)
        num = _NUM_TOP
        if activity in (UnitActivity.DEAD, UnitActivity.TIED):
            num = 0
        elif activity is UnitActivity.SPARSE:
            num = _SOURCES_OF_SPARSE[unit % 32]
        name = (index["model"], index["layer"], unit)
        drawn = dict.fromkeys(number(*name, place) % 50 for place in range(num))
        return [self._picture("source", one) for one in drawn]

    @rpc
    def SelectExemplars(self, request: pb2.SelectExemplarsRequest) -> pb2.SelectExemplarsResponse:
        check_digest(request.model_digest, self.digest)
        check_count("units", len(request.units), 1, 1024)
        index = self._read(request.index_ref)
        if request.choices:
            check_count("choices", len(request.choices), len(request.units), len(request.units))
        choices = [list(one.sources) for one in request.choices] or [[]] * len(request.units)
        answers = []
        for unit, choice in zip(request.units, choices, strict=True):
            _check_unit(index, unit)
            error = self.faults.error_of("SelectExemplars", unit)
            if error is not None:
                answers.append(pb2.UnitExemplars(unit=unit, error=error_message(error)))
            else:
                answers.append(self._exemplars(index, unit, request.settings, choice))
        return pb2.SelectExemplarsResponse(units=answers)

    def _exemplars(
        self,
        index: dict[str, Any],
        unit: int,
        settings: pb2.ExemplarSettings,
        choice: list[types_pb2.Image],
    ) -> pb2.UnitExemplars:
        activity = activity_of(unit)
        name = (index["model"], index["layer"], unit)
        chosen = tuple(image.ref for image in choice)
        num = num_exemplars_of(unit, settings.num_exemplars)
        exemplars = []
        for place in range(num):
            source = self._picture("source", number(*name, place) % 50)
            if choice:
                source = choice[place % len(choice)]
            cropped = place % 2 == 1
            exemplars.append(
                pb2.Exemplar(
                    image=self._picture("crop", *name, *chosen, place) if cropped else source,
                    source=source,
                    box=types_pb2.Box(x0=2, y0=2, x1=12, y1=12) if cropped else None,
                    activation=10.0 - place,
                )
            )
        return pb2.UnitExemplars(
            unit=unit,
            exemplars=exemplars,
            deciles=[
                pb2.DecileImage(
                    image=self._picture("source", number("decile", *name, decile) % 50),
                    decile=decile,
                    activation=float(decile),
                )
                for decile in range(10 if num else 0)
            ],
            activity=enum_value(activity, ACTIVITY),  # type: ignore[arg-type]
            activations_ref=(
                self.artifacts.put_array(self._activations(index, unit, "select"))
                if num and index["keep_matrix"]
                else ""
            ),
        )

    @rpc
    def MeasureImages(self, request: pb2.MeasureImagesRequest) -> pb2.MeasureImagesResponse:
        check_digest(request.model_digest, self.digest)
        check_count("sets", len(request.sets), 1, 1024)
        answers = []
        for one in request.sets:
            error = self.faults.error_of("MeasureImages", one.key)
            missing = [image.ref for image in one.images if image.ref not in self.artifacts]
            if error is None and missing:
                error = NotFound(f"The artifact store has no {missing[0]}.")
            if error is not None:
                answers.append(pb2.Measurement(key=one.key, error=error_message(error)))
                continue
            refs = []
            for layer in request.layers:
                size = num_units_of(request.model, layer)
                rows = [draw_vector(size, request.model, layer, image.ref) for image in one.images]
                refs.append(self.artifacts.put_array(np.stack(rows)))
            answers.append(pb2.Measurement(key=one.key, activations_refs=refs))
        return pb2.MeasureImagesResponse(measurements=answers)

    def _picture(self, *parts: Any) -> types_pb2.Image:
        return types_pb2.Image(ref=self.artifacts.put_bytes(draw_picture(16, *parts)))

    def _read(self, ref: str) -> Any:
        return json.loads(self.artifacts.get_bytes(ref))

    def _write(self, value: Any) -> str:
        return self.artifacts.put_bytes(json.dumps(value, sort_keys=True).encode())


def _activities(num_units: int) -> list[Any]:
    """Activities of a layer as numbers of the protos; quick for a million units, too."""
    pattern = [enum_value(activity_of(unit), ACTIVITY) for unit in range(16)]
    return (pattern * (num_units // 16 + 1))[:num_units]


def _layers(model: str) -> dict[str, int]:
    if model not in MODELS:
        raise UnknownName(suggest(model, sorted(MODELS), what="model"))
    return MODELS[model]


def _check_unit(index: dict[str, Any], unit: int) -> None:
    num_units = num_units_of(index["model"], index["layer"])
    if not 0 <= unit < num_units:
        raise UnitOutOfRange(f"Unit {unit}: the layer has units 0 to {num_units - 1}.")


def num_units_of(model: str, layer: str) -> int:
    """Units of a layer of a fake network; raises UnknownName for one that there is not."""
    layers = _layers(model)
    if layer not in layers:
        raise UnknownName(suggest(layer, list(layers), what="layer"))
    return layers[layer]
