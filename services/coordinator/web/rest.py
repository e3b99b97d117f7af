"""REST: each method of the API as a route, by the one table below."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from pydantic import BaseModel

from dnd.v1 import coordinator_pb2 as pb2
from dnd_services.coordinator.web import json_forms, problems, streams
from dnd_services.coordinator.web.calls import Calls, calls_of

SERVICE = pb2.DESCRIPTOR.services_by_name["CoordinatorService"]


@dataclass(frozen=True)
class Route:
    """A method of the API as an HTTP method on a path.

    Attributes:
        method: Its name in the proto.
        path: Fields of the request in braces come from the path, the others from the query (GET,
            DELETE) or the body.
        summary: What it does.
        stream: Media type of the answer, where that is a stream of messages.
    """

    method: str
    verb: Literal["GET", "POST", "DELETE"]
    path: str
    summary: str
    stream: str = ""

    @property
    def descriptor(self) -> MethodDescriptor:
        found: MethodDescriptor = SERVICE.methods_by_name[self.method]
        return found

    @property
    def path_fields(self) -> list[str]:
        """Fields of the request that are parts of the path."""
        return [part.split("}")[0].split(":")[0] for part in self.path.split("{")[1:]]


JOB = "/jobs/{job_id}"
ROUTES = (
    Route("ListTargets", "GET", "/targets", "What can be labelled, and with what"),
    Route("ListTargetLayers", "GET", "/targets/layers", "The layers of a model"),
    Route("EstimateJob", "POST", "/estimates", "Counts and predicted time of a job"),
    Route("CreateConceptSet", "POST", "/concept-sets", "Keep a list of concepts"),
    Route("CreateJob", "POST", "/jobs", "Create a job, once for each request_id"),
    Route("ListJobs", "GET", "/jobs", "Jobs, newest first"),
    Route("GetJob", "GET", JOB, "A job"),
    Route("DeleteJob", "DELETE", JOB, "Remove an ended job"),
    Route("PauseJob", "POST", f"{JOB}/pause", "Hold a job back"),
    Route("ResumeJob", "POST", f"{JOB}/resume", "Go on with a job"),
    Route("CancelJob", "POST", f"{JOB}/cancel", "End a job for good"),
    Route("RetryJob", "POST", f"{JOB}/retry", "Run failed units again"),
    Route("WatchJob", "GET", f"{JOB}/events", "The job whenever it changes", streams.EVENTS),
    Route("ListLabels", "GET", f"{JOB}/labels", "The units of a job"),
    Route("ExportLabels", "GET", f"{JOB}/export", "All units at one moment", streams.LINES),
    Route("SearchLabels", "GET", "/search", "Units by words or by meaning"),
    Route("EvaluateJob", "POST", f"{JOB}/evaluations", "Judge labels", streams.EVENTS),
    Route("TryImage", "POST", f"{JOB}/try", "The units that a picture excites"),
    Route("CollectGarbage", "POST", "/garbage", "Artifacts that nothing needs", streams.EVENTS),
    Route("CreateToken", "POST", "/tokens", "A new token of a tenant"),
    Route("ListTokens", "GET", "/tokens", "All tokens"),
    Route("RevokeToken", "DELETE", "/tokens/{token_id}", "Refuse a token from now on"),
    Route(
        *("TryWords", "POST", JOB + "/layers/{layer:path}/units/{unit}/try"),
        "Drawings of words, and a unit's activations on them",
    ),
    Route(
        "GetUnit", "GET", JOB + "/layers/{layer:path}/units/{unit}", "One unit with all evidence"
    ),
)
_MESSAGES: dict[str, type[Message]] = {
    name: getattr(pb2, name) for name in pb2.DESCRIPTOR.message_types_by_name
}


_KINDS = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}
_REFS = "#/components/schemas/{model}"


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str


_FAILURE: dict[str, Any] = {
    "description": "An error",
    "content": {problems.MEDIA_TYPE: {"schema": Problem.model_json_schema()}},
}


def make_router() -> APIRouter:
    """The routes of the API."""
    router = APIRouter()
    for route in ROUTES:
        router.add_api_route(
            route.path,
            _endpoint(route),
            methods=[route.verb],
            summary=route.summary,
            operation_id=route.method,
            response_class=Response if route.stream else JSONResponse,
            response_model=None,
            responses={200: _success(route), "default": _FAILURE},
        )
    router.add_api_route(
        f"{JOB}/images/{{ref}}",
        _get_image,
        methods=["GET"],
        summary="The bytes of an image that the job's results refer to",
        operation_id="GetImages",
        response_class=Response,
        responses={
            200: {"description": "The image", "content": {kind: {} for kind in _KINDS.values()}},
            "default": _FAILURE,
        },
    )
    return router


def _success(route: Route) -> dict[str, Any]:
    model = json_forms.body_model(route.descriptor.output_type)
    if not route.stream:
        return {"model": model}
    schema = model.model_json_schema(mode="serialization", ref_template=_REFS)
    schema.pop("$defs", None)  # they are among the components: other methods answer them too
    return {
        "description": "Messages, one for each event or line",
        "content": {route.stream: {"itemSchema": schema}},
    }


def _endpoint(route: Route) -> Callable[..., Any]:
    """What answers a route, with the signature that FastAPI reads its parameters from."""
    kind = route.descriptor.input_type
    request_class = _MESSAGES[kind.name]
    answer_class = _MESSAGES[route.descriptor.output_type.name]

    async def endpoint(calls: Calls, http: Request, **given: Any) -> Response:
        request = request_class()
        rest = given.pop("rest", None)
        json_forms.fill(request, given | (rest.model_dump() if rest is not None else {}))
        if not route.stream:
            return JSONResponse(json_forms.to_plain(await calls.ask(request, answer_class)))
        if isinstance(request, pb2.WatchJobRequest):  # of a browser that connects again by itself
            request.resume_token = http.headers.get("last-event-id", request.resume_token)
        messages = calls.follow(request, answer_class)
        if route.stream == streams.EVENTS:
            return await streams.stream_events(messages)
        return await streams.stream_lines(messages)

    endpoint.__signature__ = inspect.Signature(list(_parameters(route)))  # type: ignore[attr-defined]
    return endpoint


async def _get_image(
    calls: Annotated[Calls, Depends(calls_of)],
    job_id: Annotated[str, Path()],
    ref: Annotated[str, Path(pattern="^sha256:[0-9a-f]{64}$")],
    max_side: Annotated[int, Query(ge=0, le=2048)] = 0,
) -> Response:
    request = pb2.GetImagesRequest(job_id=job_id, refs=[ref], max_side=max_side)
    (data,) = (await calls.ask(request, pb2.GetImagesResponse)).images
    kind = next(kind for mark, kind in _KINDS.items() if data.startswith(mark))
    # What a reference stands for never changes.
    lasting = {"Cache-Control": "private, max-age=31536000, immutable"}
    return Response(data, media_type=kind, headers=lasting)


def _parameters(route: Route) -> list[inspect.Parameter]:
    """The calls, the request itself, each field of the path, and the other fields together."""
    kind = route.descriptor.input_type
    fields = route.path_fields
    annotations: dict[str, Any] = {"calls": Annotated[Calls, Depends(calls_of)], "http": Request}
    whole = json_forms.query_model(kind)
    for name in fields:
        annotations[name] = Annotated[whole.model_fields[name].rebuild_annotation(), Path()]
    others = [one for one in kind.fields if one.name not in (*fields, json_forms.CONTEXT)]
    if others and route.verb == "POST":
        annotations["rest"] = Annotated[json_forms.body_model(kind, fields), Body()]
    elif others:
        annotations["rest"] = Annotated[json_forms.query_model(kind, fields), Query()]
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(name, keyword, annotation=a) for name, a in annotations.items()]
