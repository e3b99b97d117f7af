"""The activations service as an operator runs it: a process that serves, is watched, and drains."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from processes import exit_of
from unit.activations.conftest import run_activations

from dnd.v1 import activations_pb2 as pb
from dnd.v1 import activations_pb2_grpc


def test_process_serves_is_watched_and_drains(tmp_path: Path) -> None:
    with run_activations(tmp_path) as service:
        service.check_watchable("dnd.v1.ActivationsService")
        stub = activations_pb2_grpc.ActivationsServiceStub(grpc.insecure_channel(service.address))
        layers = stub.ListLayers(pb.ListLayersRequest(model="vit"), timeout=60).layers
        assert [one.path for one in layers if one.kind == pb.LAYER_KIND_LINEAR][-1] == "classifier"
        probe = stub.GetProbeSet(pb.GetProbeSetRequest(probe="few", judge_fraction=0.2), timeout=60)
        assert probe.num_images == 20
        settings = pb.IndexSettings(pooling=pb.POOLING_MEAN, top_k=11)
        stub.IndexShard(
            pb.IndexShardRequest(
                model="vit",
                layers=["classifier"],
                manifest_ref=probe.manifest_ref,
                num_images=20,
                settings=settings,
            ),
            timeout=60,
        )
        status, log = service.stop()
        assert status == 0, log


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "DND_MODELS is not set"),
        ({"models": "/no/such.yaml"}, "DND_MODELS = '/no/such.yaml'"),
        ({"allow_specs": "true", "max_models": 0}, "DND_MAX_MODELS = 0"),
        ({"allow_specs": "true", "decoders": -1}, "DND_DECODERS = -1"),
    ],
)
def test_process_ends_with_a_sentence_when_a_setting_is_bad(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    status, log = exit_of("activations", artifacts=tmp_path, **settings)
    assert status == 2
    assert message in log
    assert "Traceback" not in log
