"""The service over gRPC: names, limits, digests, and passes that are shared and outlive callers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
import torch
from local_server import reason
from tiny import networks
from unit.activations.conftest import EXEMPLARS, INDEX, Service, start_service

from dnd.convert import to_message
from dnd.v1 import activations_pb2 as pb
from dnd_services.activations import backend
from dnd_services.activations.targets import Target


async def failure(call: object) -> tuple[str, str]:
    """Reason and message of a call that is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return reason(caught.value), caught.value.details() or ""


async def test_offered_models_and_probe_sets_are_listed(service: Service) -> None:
    answer = await service.stub.ListModels(pb.ListModelsRequest())
    assert list(answer.models) == ["planted", "tiny", "vit"]
    assert list(answer.probes) == ["more", "pictures"]


async def test_layers_are_listed_with_kinds_units_and_names(service: Service) -> None:
    answer = await service.stub.ListLayers(pb.ListLayersRequest(model="tiny"))
    assert len(answer.model_digest) == 64
    found = {one.path: one for one in answer.layers}
    assert list(found) == ["conv1", "conv2", "relu", "fc"]
    assert (found["conv2"].kind, found["conv2"].num_units) == (pb.LAYER_KIND_CONV, 12)
    assert list(found["conv2"].output_shape) == [12, 8, 8]
    assert (found["fc"].kind, tuple(found["fc"].unit_names)) == (
        pb.LAYER_KIND_LINEAR,
        networks.CLASSES,
    )


async def test_unknown_names_are_refused_with_near_ones(service: Service) -> None:
    why, text = await failure(service.stub.ListLayers(pb.ListLayersRequest(model="tiny2")))
    assert why == "UnknownName"
    assert "Did you mean 'tiny'" in text
    why, text = await failure(service.shard("tiny", ["conv9"], "sha256:" + "0" * 64, 0, 1))
    assert why == "UnknownName"
    assert "Did you mean 'conv" in text
    assert "dnd layers" in text
    why, text = await failure(service.freeze("picture"))
    assert why == "UnknownName"
    assert "Did you mean 'pictures'" in text


@pytest.mark.parametrize("scheme", ["python:os:getcwd", "hf:/tmp", "imagefolder:/etc"])
async def test_specifications_are_refused_by_default(service: Service, scheme: str) -> None:
    call = (
        service.freeze(scheme)
        if scheme.startswith("imagefolder")
        else service.stub.ListLayers(pb.ListLayersRequest(model=scheme))
    )
    why, text = await failure(call)
    assert why == "InvalidInput"
    assert "DND_ALLOW_SPECS" in text


async def test_specifications_work_on_a_private_stack(
    tmp_path: Path, offered: Path, pictures: Path
) -> None:
    async with start_service(tmp_path, offered, models="", allow_specs=True) as service:
        answer = await service.stub.ListLayers(
            pb.ListLayersRequest(model="python:tiny.networks:load_cnn")
        )
        assert len(answer.layers) == 4
        assert (await service.freeze(str(pictures))).num_images == 60


async def test_union_is_frozen_once_for_equal_images(service: Service) -> None:
    assert (await service.freeze("more")).num_images == 20
    union = await service.freeze("pictures+more")
    assert union.num_images == 70
    assert (await service.freeze("more+pictures")).manifest_ref == union.manifest_ref


async def test_other_weights_than_the_caller_is_frozen_to_are_refused(service: Service) -> None:
    layers = await service.stub.ListLayers(pb.ListLayersRequest(model="tiny"))
    (found,) = await service.index("tiny", ["fc"])
    request = pb.SelectExemplarsRequest(
        model="tiny",
        index_ref=found.index_ref,
        units=[0],
        settings=to_message(EXEMPLARS, pb.ExemplarSettings),
        model_digest=layers.model_digest,
    )
    assert (await service.stub.SelectExemplars(request)).units[0].exemplars
    request.model_digest = "0" * 64
    why, _ = await failure(service.stub.SelectExemplars(request))
    assert why == "DigestMismatch"
    # An index of another network is no index of this one.
    (other,) = await service.index("vit", ["classifier"])
    why, _ = await failure(service.exemplars("tiny", other.index_ref, [0]))
    assert why in ("UnknownName", "DigestMismatch")


@pytest.mark.parametrize("unit", [-1, 6, 2**31 - 1])
async def test_unit_that_the_layer_does_not_have_is_refused(service: Service, unit: int) -> None:
    (found,) = await service.index("tiny", ["fc"])
    why, text = await failure(service.exemplars("tiny", found.index_ref, [0, unit]))
    assert why == "UnitOutOfRange"
    assert f"Unit {unit}" in text
    assert "units 0 to 5" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": []}, "0 layers: expected at least 1"),
        ({"layers": ["fc"] * 300}, "300 layers: expected at most 256"),
        ({"first_image": 58, "num_images": 5}, "has images 0 to 59"),
        ({"num_images": 0}, "has images 0 to 59"),
        ({"settings": {"top_k": 10}}, "top_k is 10: expected 11"),
        ({"settings": {"num_sample": -1}}, "num_sample is -1"),
        ({"settings": {"judge_fraction": 1.0}}, "judge_fraction is 1.0"),
        ({"settings": {"judge_fraction": float("nan")}}, "judge_fraction is nan"),
        ({"settings": {"pooling": 0}}, "Pooling is"),
        ({"manifest_ref": "x"}, "no artifact reference"),
        ({"manifest_ref": "sha256:" + "0" * 64}, "has no sha256:"),
    ],
)
async def test_wrong_shard_is_refused_before_anything_is_computed(
    service: Service, measured: list[int], change: dict[str, object], message: str
) -> None:
    frozen = await service.freeze("pictures")
    good = pb.IndexShardRequest(
        model="tiny",
        layers=["fc"],
        manifest_ref=frozen.manifest_ref,
        num_images=60,
        settings=to_message(INDEX, pb.IndexSettings),
    )
    bad = pb.IndexShardRequest()
    bad.CopyFrom(good)
    for name, value in change.items():
        if isinstance(value, dict):
            for field, number in value.items():
                setattr(bad.settings, field, number)
        elif isinstance(value, list):
            bad.ClearField(name)
            bad.layers.extend(value)
        else:
            setattr(bad, name, value)
    _, text = await failure(service.stub.IndexShard(bad))
    assert message in text
    assert measured == []


async def test_judge_fraction_of_a_probe_set_is_checked(service: Service) -> None:
    for wrong in (-0.1, 1.0, float("nan")):
        why, text = await failure(service.freeze("pictures", wrong))
        assert why == "InvalidInput"
        assert "expected 0 or more and less than 1" in text


# --- Passes ---------------------------------------------------------------------------------------


async def test_shard_is_computed_once_for_all_who_ask_and_after_a_restart(
    tmp_path: Path, offered: Path, measured: list[int]
) -> None:
    async with start_service(tmp_path, offered) as service:
        ref = (await service.freeze("pictures")).manifest_ref
        asked = [service.shard("tiny", ["fc"], ref, first, 30) for first in (0, 30, 0, 30, 0)]
        shards = await asyncio.gather(*asked)
        assert len(set(shards)) == 2
        assert sum(measured) == 60
        assert await service.shard("tiny", ["fc"], ref, 0, 30) == shards[0]
    async with start_service(tmp_path, offered) as service:
        assert await service.shard("tiny", ["fc"], ref, 30, 30) == shards[1]
        assert sum(measured) == 60
        assert await service.shard("tiny", ["fc"], ref, 0, 60) not in shards
        assert sum(measured) == 120


async def test_pass_goes_on_when_its_caller_has_gone(service: Service, measured: list[int]) -> None:
    ref = (await service.freeze("pictures")).manifest_ref
    call = asyncio.ensure_future(service.shard("tiny", ["conv1", "fc"], ref, 0, 60))
    while not measured:
        await asyncio.sleep(0.001)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await service.shard("tiny", ["conv1", "fc"], ref, 0, 60)
    assert sum(measured) == 60


async def test_networks_beyond_the_limit_are_let_go_of_and_loaded_again(
    tmp_path: Path, offered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = backend.load_target

    def count(spec: object) -> Target:
        loaded.append(str(spec).rpartition(":")[2])
        return load(spec)  # type: ignore[arg-type]

    monkeypatch.setattr(backend, "load_target", count)
    async with start_service(tmp_path, offered, max_models=1) as service:
        asked = ("tiny", "tiny", "planted", "tiny")
        digests = [
            (await service.stub.ListLayers(pb.ListLayersRequest(model=name))).model_digest
            for name in asked
        ]
    assert loaded == ["load_cnn", "load_planted", "load_cnn"]
    assert digests[0] == digests[1] == digests[3] != digests[2]


async def test_network_that_answers_no_numbers_is_a_bad_answer(
    tmp_path: Path, offered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = networks.load_cnn()
    with torch.no_grad():
        broken.module.fc.bias[2] = torch.nan  # type: ignore[union-attr,index]
    monkeypatch.setattr(backend, "load_target", lambda spec: broken)
    async with start_service(tmp_path, offered) as service:
        assert (await service.index("tiny", ["conv2"]))[0].index_ref
        ref = (await service.freeze("pictures")).manifest_ref
        why, text = await failure(service.shard("tiny", ["fc"], ref, 0, 60))
    assert why == "BadAnswer"
    assert "DND_DTYPE" in text
