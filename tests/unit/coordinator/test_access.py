"""Who may call what: tokens, roles, tenants, limits; every method of the API is tried."""

from __future__ import annotations

import asyncio
import base64
import itertools
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from coordinator_api import make_servicer, serve_web
from coordinator_desk import Clock, Desk
from google.protobuf.message import Message
from local_server import reason, serve
from PIL import Image

from dnd.errors import BadSetting, Overloaded, PermissionDenied, Unauthenticated
from dnd.images import encode_png
from dnd.jobs import JobSpec, spec_to_message
from dnd.serving import Metrics, StageService
from dnd.tokens import Role, Token
from dnd.v1 import coordinator_pb2 as pb2
from dnd.v1 import coordinator_pb2_grpc
from dnd_services.coordinator import access
from dnd_services.coordinator.access import ROLES, SERVICE, Gate, gated_servicer
from dnd_services.coordinator.settings import CoordinatorSettings
from dnd_services.coordinator.store import tokens
from dnd_services.coordinator.web import pages, rest
from dnd_services.coordinator.web.app import PREFIX, create_app
from dnd_services.coordinator.web.pages import login

PICTURE = encode_png(Image.new("RGB", (40, 30), "red"))
METHODS = [method.name for method in SERVICE.methods]


def lock(desk: Desk, **more: Any) -> None:
    desk.tune(auth="tokens", **more)


def bearer(desk: Desk, tenant: str, role: Role = Role.ADMIN) -> str:
    return "Bearer " + tokens.create_token(desk.store, "test", tenant, role)[1]


@asynccontextmanager
async def serve_gated(desk: Desk) -> AsyncIterator[Any]:
    """A stub of the gated API over gRPC."""
    servicer = make_servicer(desk)
    gated = gated_servicer(servicer, Gate(desk.store, desk.settings))

    def add(server: grpc.aio.Server) -> None:
        coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(gated, server)

    async def close() -> None:
        servicer.close()

    service = StageService("dnd.v1.CoordinatorService", add, close)
    async with serve(service, Metrics()) as channel:
        yield coordinator_pb2_grpc.CoordinatorServiceStub(channel)


async def call(stub: Any, method: str, request: Message, authorization: str = "") -> Any:
    """The answer of a method, or all of its messages."""
    metadata = (("authorization", authorization),) if authorization else ()
    answer = getattr(stub, method)(request, metadata=metadata, timeout=20)
    if SERVICE.methods_by_name[method].server_streaming:
        return [one async for one in answer]
    return await answer


async def refusal(stub: Any, method: str, request: Message, authorization: str = "") -> str:
    """Name of the error of a call, "" for none."""
    try:
        await call(stub, method, request, authorization)
    except grpc.aio.AioRpcError as error:
        return reason(error)
    return ""


def request_of(method: str, **fields: Any) -> Any:
    return getattr(pb2, f"{method}Request")(**fields)


def test_every_method_has_a_role() -> None:
    assert set(ROLES) == set(METHODS)


async def test_no_method_answers_without_a_valid_token(desk: Desk) -> None:
    lock(desk)
    async with serve_gated(desk) as stub:
        for method in METHODS:
            assert await refusal(stub, method, request_of(method)) == "Unauthenticated", method
        wrong = await refusal(stub, "ListJobs", request_of("ListJobs"), "Bearer dnd_wrong")
        assert wrong == "Unauthenticated"


async def test_roles_may_call_what_they_include(desk: Desk) -> None:
    lock(desk)
    order = list(Role)
    senders = {role: bearer(desk, "a", role) for role in Role}
    async with serve_gated(desk) as stub:
        for method, role in itertools.product(METHODS, Role):
            if method in ("EvaluateJob", "CollectGarbage") and role.includes(ROLES[method]):
                continue  # they would begin to work
            refused = await refusal(stub, method, request_of(method), senders[role])
            allowed = order.index(role) >= order.index(ROLES[method])
            assert (refused != "PermissionDenied") == allowed, (method, role)


# Requests for what belongs to another tenant: its job, a layer and unit of it, its images.
FOREIGN: dict[str, Callable[[str, str, str], dict[str, Any]]] = {
    "GetJob": lambda job, ref, concepts: {"job_id": job},
    "WatchJob": lambda job, ref, concepts: {"job_id": job},
    "PauseJob": lambda job, ref, concepts: {"job_id": job},
    "ResumeJob": lambda job, ref, concepts: {"job_id": job},
    "CancelJob": lambda job, ref, concepts: {"job_id": job},
    "RetryJob": lambda job, ref, concepts: {"job_id": job},
    "DeleteJob": lambda job, ref, concepts: {"job_id": job},
    "GetUnit": lambda job, ref, concepts: {"job_id": job, "layer": "classifier", "unit": 0},
    "ListLabels": lambda job, ref, concepts: {"job_id": job},
    "ExportLabels": lambda job, ref, concepts: {"job_id": job},
    "SearchLabels": lambda job, ref, concepts: {"job_id": job, "text": "dog"},
    "GetImages": lambda job, ref, concepts: {"job_id": job, "refs": [ref]},
    "EvaluateJob": lambda job, ref, concepts: {"job_id": job},
    "TryImage": lambda job, ref, concepts: {"job_id": job, "image": PICTURE},
    "TryWords": lambda job, ref, concepts: {
        "job_id": job,
        "layer": "classifier",
        "unit": 0,
        "words": "a dog",
    },
    "EstimateJob": lambda job, ref, concepts: {"spec": _with_concepts(concepts)},
    "CreateJob": lambda job, ref, concepts: {"request_id": "x", "spec": _with_concepts(concepts)},
}
# What a tenant asks for without naming a job, or what is the operator's.
OWN = {
    *("ListTargets", "ListTargetLayers", "CreateConceptSet", "ListJobs"),
    *("CollectGarbage", "CreateToken", "ListTokens", "RevokeToken"),
}


def _with_concepts(concepts: str) -> pb2.JobSpec:
    return pb2.JobSpec(model="tiny", probe="shapes", method="clip-dissect", concept_set=concepts)


async def test_no_method_reaches_jobs_labels_or_images_of_another_tenant(
    desk: Desk, spec: JobSpec
) -> None:
    assert set(FOREIGN) | OWN == set(METHODS), "a new method: say how it is tried"
    job_id = desk.create(replace(spec, layers=spec.layers[1:]), tenant="a")
    desk.run_to_end(job_id)
    lock(desk)
    a, b = bearer(desk, "a"), bearer(desk, "b")
    own_id = desk.create(spec, tenant="b")
    async with serve_gated(desk) as stub:
        unit = (await call(stub, "ListLabels", pb2.ListLabelsRequest(with_records=True), a)).units[
            0
        ]
        ref = desk.records(job_id)[0]["exemplars"][0]["image"]
        given = pb2.CreateConceptSetRequest(name="mine", text="dog\ncat")
        concepts = (await call(stub, "CreateConceptSet", given, a)).concept_set
        images = pb2.GetImagesRequest(job_id=job_id, refs=[ref])
        assert len((await call(stub, "GetImages", images, a)).images) == 1
        for method, fields in FOREIGN.items():
            request = request_of(method, **fields(job_id, ref, concepts))
            assert await refusal(stub, method, request, b) == "NotFound", method
        # Not through a job of its own either, nor in lists and searches of all jobs.
        through = pb2.GetImagesRequest(job_id=own_id, refs=[ref])
        assert await refusal(stub, "GetImages", through, b) == "NotFound"
        listed = await call(stub, "ListJobs", pb2.ListJobsRequest(), b)
        assert [job.id for job in listed.jobs] == [own_id]
        word = unit.labels[0].split()[0]
        for mode in (pb2.SEARCH_MODE_WORDS, pb2.SEARCH_MODE_MEANING):
            search = pb2.SearchLabelsRequest(text=word, mode=mode)
            assert not (await call(stub, "SearchLabels", search, b)).hits
            assert (await call(stub, "SearchLabels", search, a)).hits
        # Nor by naming the other tenant, or its job's resume token.
        named = pb2.GetJobRequest(job_id=job_id)
        named.context.tenant = "a"
        assert await refusal(stub, "GetJob", named, b) == "PermissionDenied"
        token = (await call(stub, "WatchJob", pb2.WatchJobRequest(job_id=job_id), a))[
            0
        ].resume_token
        resumed = pb2.WatchJobRequest(resume_token=token)
        assert await refusal(stub, "WatchJob", resumed, b) == "NotFound"
        # The same request id makes a job of its own.
        spec_message = spec_to_message(spec)
        made = pb2.CreateJobRequest(request_id="r2", spec=spec_message)
        first, second = [(await call(stub, "CreateJob", made, one)).job.id for one in (a, b)]
        assert first != second


# Addresses that name no job, with what is asked there; of no tenant, or of the caller's alone.
PLAIN_ROUTES = {
    *("GET /api/v1/openapi.json", "GET /healthz", "GET /static/{name}", "POST /login", "GET /"),
    *("GET /api/v1/targets", "GET /api/v1/targets/layers", "POST /api/v1/estimates"),
    *("POST /api/v1/concept-sets", "POST /api/v1/jobs", "GET /api/v1/jobs", "GET /api/v1/search"),
    *("POST /api/v1/garbage", "POST /api/v1/tokens", "GET /api/v1/tokens"),
    *("DELETE /api/v1/tokens/{token_id}", "GET /jobs", "GET /search", "GET /compare"),
    "GET /{path:path}",
}
BODIES: dict[str, Any] = {
    "/api/v1/jobs/{job_id}/try": {"image": base64.b64encode(PICTURE).decode()},
    "/api/v1/jobs/{job_id}/layers/{layer:path}/units/{unit}/try": {"words": "a dog"},
}


def routes_of(app: Any) -> list[tuple[str, str]]:
    """Method and path of everything that the web application answers."""
    own = [(route.path, route) for route in app.routes if hasattr(route, "methods")]
    routers = {PREFIX: rest.make_router(), "": pages.router, "/": login.router}
    assert len(app.routes) == len(own) + len(routers), "another router: add it here"
    for prefix, router in routers.items():
        own += [(prefix.rstrip("/") + route.path, route) for route in router.routes]
    return [(method, path) for path, route in own for method in sorted(route.methods - {"HEAD"})]


async def test_no_route_or_page_reaches_a_job_of_another_tenant(desk: Desk, spec: JobSpec) -> None:
    job_id = desk.create(replace(spec, layers=spec.layers[1:]), tenant="a")
    desk.run_to_end(job_id)
    lock(desk)
    record = desk.records(job_id)[0]
    ref, word = record["exemplars"][0]["image"], record["labels"][0]["text"]
    places = {"job_id": job_id, "layer": "classifier", "unit": "0", "ref": ref}
    a, b = ({"authorization": bearer(desk, one)} for one in "ab")
    async with serve_web(desk) as http:
        routes = routes_of(
            create_app(make_servicer(desk), Gate(desk.store, desk.settings), Metrics())
        )
        assert len(routes) > 40
        for method, path in routes:
            if f"{method} {path}" in PLAIN_ROUTES:
                continue
            assert "{job_id}" in path, f"{method} {path} is new: say how it is tried"
            address = re.sub(r"{(\w+)(:\w+)?}", lambda found: places[found[1]], path)
            body = {"json": BODIES.get(path, {})} if method == "POST" else {}
            page = {"x-part": "try", "accept": "text/html"} if "/api/" not in path else {}
            refused = await http.request(method, address, headers=b | page, **body)
            assert refused.status_code == 404, (method, path, refused.text[:300])
            if method == "GET":  # for its owner it is there
                seen = await http.get(address, headers=a)
                assert seen.status_code == 200, (path, seen.text[:300])
        # Lists and searches that name no job.
        for path in (
            *("/jobs", f"/search?q={word}", f"/search?q={word}&by=meaning", "/api/v1/jobs"),
            *(f"/api/v1/search?text={word}", f"/api/v1/search?text={word}&mode=meaning"),
        ):
            assert job_id in (await http.get(path, headers=a)).text, path
            own = await http.get(path, headers=b)
            assert (own.status_code, job_id in own.text) == (200, False), path
        for query in (f"a={job_id}", f"a={job_id}&b={job_id}", f"b={job_id}"):
            assert (await http.get(f"/compare?{query}", headers=b)).status_code == 404
        named = {"text": word, "job_id": job_id}
        assert (await http.get("/api/v1/search", params=named, headers=b)).status_code == 404


async def test_rest_takes_the_same_tokens(desk: Desk, spec: JobSpec) -> None:
    job_id = desk.create(spec, tenant="a")
    lock(desk)
    reader, admin = bearer(desk, "a", Role.READ), bearer(desk, "b")
    async with serve_web(desk) as http:
        path = f"/api/v1/jobs/{job_id}"
        assert (await http.get(path)).status_code == 401
        assert (await http.get("/healthz")).status_code == 200
        mine = {"authorization": reader}
        assert (await http.get(path, headers=mine)).json()["job"]["id"] == job_id
        assert (await http.post(f"{path}/cancel", headers=mine)).status_code == 403
        other = {"authorization": admin}
        assert (await http.get(path, headers=other)).status_code == 404
        named = {"authorization": admin, "x-dnd-tenant": "a"}
        assert (await http.get(path, headers=named)).status_code == 403
        http.cookies.set("dnd_token", reader.removeprefix("Bearer "))
        assert (await http.get(path)).status_code == 200
        elsewhere = await http.post(f"{path}/cancel", headers={"sec-fetch-site": "cross-site"})
        assert elsewhere.json()["title"] == "PermissionDenied"


async def test_browser_logs_in_with_a_token_that_no_script_can_read(desk: Desk) -> None:
    lock(desk)
    secret = bearer(desk, "a", Role.READ).removeprefix("Bearer ")
    html = {"accept": "text/html"}
    async with serve_web(desk) as http:
        asked = await http.get("/jobs", headers=html)
        assert (asked.status_code, 'name="token"' in asked.text) == (401, True)
        wrong = await http.post("/login", data={"token": "dnd_x"}, headers=html)
        assert wrong.status_code == 401
        cross = {"sec-fetch-site": "cross-site"}
        refused = await http.post("/login", data={"token": secret}, headers=cross)
        assert refused.status_code == 403
        for target, leads_to in (("/search?q=x", "/search?q=x"), ("//evil.example", "/")):
            entered = await http.post("/login", data={"token": secret, "next": target})
            assert (entered.status_code, entered.headers["location"]) == (303, leads_to)
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert (await http.get("/jobs", headers=html)).status_code == 200
        assert (await http.get("/api/v1/jobs")).status_code == 200


async def test_open_server_answers_to_names_of_loopback_only(desk: Desk) -> None:
    async with serve_web(desk) as http:
        for host, status in (("localhost:80", 200), ("[::1]", 200), ("evil.example", 403)):
            answer = await http.get("/api/v1/jobs", headers={"host": host})
            assert answer.status_code == status, host


async def test_token_is_made_listed_and_revoked_without_its_secret(desk: Desk) -> None:
    lock(desk)
    admin = bearer(desk, "ops")
    async with serve_gated(desk) as stub:
        asked = pb2.CreateTokenRequest(name="ci", tenant="team-a", role=pb2.ROLE_READ)
        made = await call(stub, "CreateToken", asked, admin)
        sent = f"Bearer {made.secret}"
        assert await refusal(stub, "ListJobs", pb2.ListJobsRequest(), sent) == ""
        listed = (await call(stub, "ListTokens", pb2.ListTokensRequest(), admin)).tokens
        assert [(one.name, one.tenant) for one in listed] == [("test", "ops"), ("ci", "team-a")]
        revoke = pb2.RevokeTokenRequest(token_id=made.token.id)
        assert (await call(stub, "RevokeToken", revoke, admin)).token.revoked_at_s > 0
        assert await refusal(stub, "CreateToken", pb2.CreateTokenRequest(), admin) == "InvalidInput"
        bad = pb2.CreateTokenRequest(name="x", tenant="../a", role=pb2.ROLE_READ)
        assert await refusal(stub, "CreateToken", bad, admin) == "InvalidInput"
    raw = Path(desk.store.url.removeprefix("sqlite:///"))
    kept = b"".join(path.read_bytes() for path in raw.parent.glob("record.db*"))
    assert made.secret.encode() not in kept
    async with serve_gated(desk) as stub:  # another process: nothing is remembered
        assert await refusal(stub, "ListJobs", pb2.ListJobsRequest(), sent) == "Unauthenticated"


async def test_revoked_token_is_refused_once_it_is_looked_up_again(desk: Desk) -> None:
    lock(desk)
    clock = Clock()
    gate = Gate(desk.store, desk.settings, clock)
    token, secret = tokens.create_token(desk.store, "t", "a", Role.READ)
    assert (await gate.identify(f"Bearer {secret}", "p")).id == token.id
    tokens.revoke_token(desk.store, token.id)
    clock.now += access.KNOWN_FOR_S + 1
    with pytest.raises(Unauthenticated, match="revoked"):
        await gate.identify(f"Bearer {secret}", "p")


async def test_guessing_is_slow_and_locks_out_nobody_else(desk: Desk) -> None:
    lock(desk)
    clock = Clock()
    gate = Gate(desk.store, desk.settings, clock)
    _, secret = tokens.create_token(desk.store, "t", "a", Role.READ)
    _, late = tokens.create_token(desk.store, "t", "a", Role.READ)
    await gate.identify(secret, "neighbour")
    for guess in range(access.MAX_GUESSES):
        with pytest.raises(Unauthenticated):
            await gate.identify(f"Bearer dnd_{guess}", "neighbour")
    with pytest.raises(Overloaded) as caught:
        await gate.identify(late, "neighbour")
    assert caught.value.retry_after_s == pytest.approx(access.GUESSES_WITHIN_S)
    assert await gate.identify(secret, "neighbour")
    assert await gate.identify(late, "elsewhere")
    clock.now += access.GUESSES_WITHIN_S + 1
    with pytest.raises(Unauthenticated):
        await gate.identify("Bearer dnd_next", "neighbour")


async def test_guesses_at_the_same_time_are_no_more_than_one_after_the_other(desk: Desk) -> None:
    lock(desk)
    gate = Gate(desk.store, desk.settings)
    sent = bearer(desk, "a", Role.READ)
    for one in await asyncio.gather(*(gate.identify(sent, "busy") for _ in range(30))):
        assert one.tenant == "a"  # a client that begins with many calls is not taken for guessing
    guesses = [gate.identify(f"Bearer dnd_{number}", "busy") for number in range(50)]
    found = Counter(map(type, await asyncio.gather(*guesses, return_exceptions=True)))
    assert found == {Unauthenticated: access.MAX_GUESSES, Overloaded: 50 - access.MAX_GUESSES}


def test_calls_of_a_token_are_limited_by_the_second(desk: Desk) -> None:
    lock(desk, calls_per_s=2.0)
    clock = Clock()
    gate = Gate(desk.store, desk.settings, clock)
    one, other = (Token(name, name, "a", Role.READ, 0.0) for name in ("one", "other"))
    for _ in range(4):
        gate.count_call(one)
    with pytest.raises(Overloaded, match="2 calls a second") as caught:
        gate.count_call(one)
    assert caught.value.retry_after_s == pytest.approx(0.5)
    gate.count_call(other)
    clock.now += 0.5
    gate.count_call(one)


async def test_first_token_comes_from_a_file(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "admin"
    file.write_text("short\n")
    lock(desk, admin_token_file=str(file))
    with pytest.raises(BadSetting, match="at least 32 characters"):
        Gate(desk.store, desk.settings)
    file.write_text("s" * 40 + "\n")
    gate = Gate(desk.store, desk.settings)
    assert (await gate.identify("Bearer " + "s" * 40, "p")).role is Role.ADMIN
    with pytest.raises(BadSetting, match="cannot be read"):
        Gate(desk.store, replace(desk.settings, admin_token_file=str(tmp_path / "none")))


async def test_tenant_of_the_request_must_be_the_token_s(desk: Desk) -> None:
    lock(desk)
    gate = Gate(desk.store, desk.settings)
    request = pb2.GetJobRequest()
    await gate.admit("GetJob", request, bearer(desk, "a"), "p")
    assert request.context.tenant == "a"
    with pytest.raises(PermissionDenied, match="leave the tenant out"):
        await gate.admit("GetJob", request, bearer(desk, "b"), "p")


def test_server_binds_beyond_loopback_only_with_tokens(desk: Desk) -> None:
    open_to_all: CoordinatorSettings = replace(desk.settings, host="0.0.0.0")
    with pytest.raises(BadSetting, match="loopback only"):
        open_to_all.validate()
    replace(open_to_all, auth="tokens").validate()
    with pytest.raises(BadSetting, match="DND_AUTH = 'on'"):
        replace(desk.settings, auth="on").validate()


async def test_reader_may_look_but_not_try(desk: Desk) -> None:
    lock(desk)
    headers = {"authorization": bearer(desk, "a", Role.READ), "x-part": "try"}
    sender = headers | {"authorization": bearer(desk, "a", Role.SUBMIT)}
    async with serve_web(desk) as http:
        assert (await http.get("/jobs", headers=headers)).status_code == 200
        for path in ("/jobs/j/try", "/jobs/j/units/layer/3/try"):
            assert (await http.post(path, content=b"x", headers=headers)).status_code == 403
            assert (await http.post(path, content=b"x", headers=sender)).status_code == 404
