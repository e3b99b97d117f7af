"""Calls of every method of the API that are wrong somewhere are answered or refused, over gRPC."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from coordinator_api import make_servicer
from coordinator_desk import SMALL, Desk, open_desk
from google.protobuf.message import Message
from hypothesis import given, note
from hypothesis import strategies as st
from local_server import serve
from mutations import damaged, fuzzing, mutated
from PIL import Image

from dnd.artifacts import ArtifactStore
from dnd.errors import InvalidInput
from dnd.images import encode_png
from dnd.jobs import JobSpec, LayerUnits, spec_to_message
from dnd.serving import Metrics, StageService
from dnd.testing import start_fakes
from dnd.tokens import Role
from dnd.v1 import coordinator_pb2 as pb2
from dnd.v1 import coordinator_pb2_grpc
from dnd_services.coordinator.access import SERVICE, Gate, gated_servicer
from dnd_services.coordinator.store import tokens

METHODS = {method.name: method.server_streaming for method in SERVICE.methods}
DEFECTS = (
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
)
DEADLINE_S = 60.0
LAYER, UNIT = "features.conv", 5
PICTURE = encode_png(Image.new("RGB", (64, 40), "red"))
SPEC = JobSpec(
    model="tiny",
    layers=(LayerUnits(LAYER, tuple(range(4, 8))),),
    probe="shapes",
    profile="starter",
    overrides=SMALL,
)


@dataclass
class Api:
    """A coordinator behind a gRPC server, with a job that has ended.

    Attributes:
        ask: Gives a method a request; what it answers, or raises grpc.aio.AioRpcError.
    """

    desk: Desk
    ask: Callable[[str, Message], list[Any]]
    job_id: str = ""
    image: str = ""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.job_id = self._job()
        self.desk.run_to_end(self.job_id)
        self.image = self.desk.records(self.job_id)[0]["exemplars"][0]["image"]

    def good(self, method: str) -> Any:
        """A request that is answered; a new one each time."""
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", method).lower()
        fields: dict[str, Any] = getattr(self, f"_{name}")()
        return getattr(pb2, f"{method}Request")(**fields)

    def _job(self) -> str:
        return self.desk.create(SPEC, f"job {next(self._numbers)}")

    # --- What there is, and jobs as a whole ---

    def _list_targets(self) -> dict[str, Any]:
        return {}

    def _list_target_layers(self) -> dict[str, Any]:
        return {"model": "tiny"}

    def _estimate_job(self) -> dict[str, Any]:
        return {"spec": spec_to_message(SPEC)}

    def _create_concept_set(self) -> dict[str, Any]:
        return {"name": "animals", "text": "a cat\na dog\n\na dog"}

    def _create_job(self) -> dict[str, Any]:
        return {"request_id": f"{next(self._numbers)}", "spec": spec_to_message(SPEC)}

    def _get_job(self) -> dict[str, Any]:
        return {"job_id": self.job_id}

    def _list_jobs(self) -> dict[str, Any]:
        return {"page_size": 2}

    def _watch_job(self) -> dict[str, Any]:
        return {"job_id": self.job_id}

    def _pause_job(self) -> dict[str, Any]:
        return {"job_id": self._job()}

    def _resume_job(self) -> dict[str, Any]:
        return {"job_id": self._job(), "limits": pb2.Limits(max_tokens=1000)}

    def _cancel_job(self) -> dict[str, Any]:
        return {"job_id": self._job()}

    def _retry_job(self) -> dict[str, Any]:
        """A job whose index could not be made."""
        faults = self.desk.fakes.activations.faults
        faults.call = lambda name: InvalidInput("Not now.") if name == "IndexShard" else None
        job_id = self._job()
        self.desk.run_to_end(job_id)
        faults.call = None
        return {"job_id": job_id}

    def _delete_job(self) -> dict[str, Any]:
        job_id = self._job()
        self.desk.cancel(job_id)
        return {"job_id": job_id}

    # --- What came of them ---

    def _get_unit(self) -> dict[str, Any]:
        return {"job_id": self.job_id, "layer": LAYER, "unit": UNIT}

    def _list_labels(self) -> dict[str, Any]:
        return {"job_id": self.job_id, "page_size": 2, "with_records": True}

    def _export_labels(self) -> dict[str, Any]:
        return {"job_id": self.job_id}

    def _search_labels(self) -> dict[str, Any]:
        return {"text": "cat", "mode": pb2.SEARCH_MODE_MEANING, "page_size": 2}

    def _get_images(self) -> dict[str, Any]:
        return {"job_id": self.job_id, "refs": [self.image], "max_side": 32}

    def _evaluate_job(self) -> dict[str, Any]:
        return {
            "job_id": self.job_id,
            "settings": pb2.EvaluationSettings(num_drawings=2, max_images=40),
            "label_sets": [
                pb2.LabelSet(
                    name="mine", labels=[pb2.UnitLabel(layer=LAYER, unit=UNIT, label="a cat")]
                )
            ],
        }

    def _try_image(self) -> dict[str, Any]:
        return {"job_id": self.job_id, "image": PICTURE}

    def _try_words(self) -> dict[str, Any]:
        return {"job_id": self.job_id, "layer": LAYER, "unit": UNIT, "words": "a red cat"}

    # --- For operators ---

    def _collect_garbage(self) -> dict[str, Any]:
        return {"grace_s": 3600.0}

    def _create_token(self) -> dict[str, Any]:
        return {"name": "mine", "tenant": "default", "role": pb2.ROLE_READ}

    def _list_tokens(self) -> dict[str, Any]:
        return {}

    def _revoke_token(self) -> dict[str, Any]:
        token, _ = tokens.create_token(self.desk.store, "old", "default", Role.READ)
        return {"token_id": token.id}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("api")
    with (
        asyncio.Runner() as runner,
        start_fakes(ArtifactStore(folder / "artifacts")) as fakes,
        open_desk(fakes, folder) as desk,
    ):
        opened = AsyncExitStack()
        channel = runner.run(opened.enter_async_context(serve(_service(desk), Metrics())))

        def ask(method: str, request: Message) -> list[Any]:
            return runner.run(_ask(channel, method, request))

        yield Api(desk, ask)
        runner.run(opened.aclose())


def _service(desk: Desk) -> StageService:
    servicer = make_servicer(desk)

    def add(server: grpc.aio.Server) -> None:
        coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(
            gated_servicer(servicer, Gate(desk.store, desk.settings)), server
        )

    async def close() -> None:
        servicer.close()

    return StageService(SERVICE.full_name, add, close)


async def _ask(channel: grpc.aio.Channel, method: str, request: Message) -> list[Any]:
    """All answers; of a job that is watched the first one, as it may never end."""
    call = getattr(coordinator_pb2_grpc.CoordinatorServiceStub(channel), method)
    if not METHODS[method]:
        return [await call(request, timeout=DEADLINE_S)]
    answers = []
    stream = call(request, timeout=DEADLINE_S)
    async for answer in stream:
        answers.append(answer)
        if method == "WatchJob":
            stream.cancel()
            break
    return answers


def ask_badly(api: Api, method: str, request: Message) -> None:
    """The request may be refused, for a reason that is the caller's to mend."""
    note(str(request)[:2000])
    try:
        api.ask(method, request)
    except grpc.aio.AioRpcError as error:
        if error.code() in DEFECTS:
            raise


@pytest.mark.parametrize("method", METHODS)
@fuzzing(8)
@given(data=st.data())
def test_mutated_requests_are_answered_or_refused(
    api: Api, method: str, data: st.DataObject
) -> None:
    ask_badly(api, method, mutated(data, api.good(method)))


@fuzzing(12)
@given(data=st.data())
def test_damaged_pictures_are_tried_or_refused(api: Api, data: st.DataObject) -> None:
    request = api.good("TryImage")
    request.image = damaged(data, request.image)
    ask_badly(api, "TryImage", request)


def test_good_requests_are_answered_after_all_that(api: Api) -> None:
    for method in METHODS:
        assert api.ask(method, api.good(method)), method
