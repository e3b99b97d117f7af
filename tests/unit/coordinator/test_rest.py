"""REST: the methods of the API as JSON over HTTP, its errors as problems."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import pytest
from coordinator_api import make_servicer, serve_web
from coordinator_desk import CALIBRATED, Desk
from sqlalchemy import update

from dnd.errors import CODES, BadSetting, DndError, NotFound, Unavailable
from dnd.images import decode_image
from dnd.jobs import JobSpec, spec_to_message
from dnd.serving import Metrics
from dnd.v1 import captioner_pb2
from dnd.v1 import coordinator_pb2 as pb2
from dnd_services.coordinator import searching, views
from dnd_services.coordinator.access import MAX_GUESSES, Gate
from dnd_services.coordinator.models import LabelVectorRow, UnitRow
from dnd_services.coordinator.record_cache import RecordCache
from dnd_services.coordinator.servicer import CoordinatorServicer
from dnd_services.coordinator.web import guarding, json_forms, problems, serving
from dnd_services.coordinator.web.app import create_app
from dnd_services.coordinator.web.calls import Calls
from dnd_services.coordinator.web.problems import MEDIA_TYPE, STATUSES
from dnd_services.coordinator.web.rest import ROUTES


def as_json(spec: JobSpec) -> dict[str, Any]:
    return json_forms.to_plain(spec_to_message(spec))


async def test_job_is_made_and_read_over_http(desk: Desk, spec: JobSpec) -> None:
    async with serve_web(desk) as http:
        assert (await http.get("/healthz")).json() == {"status": "serving"}
        body = {"request_id": "r", "spec": as_json(spec)}
        made = await http.post("/api/v1/jobs", json=body)
        assert made.status_code == 200, made.text
        job = made.json()["job"]
        assert (job["state"], job["num_units"], job["spec"]["seed"]) == ("running", 20, 7)
        assert job["profile"]["name"] == "starter"
        again = await http.post("/api/v1/jobs", json=body)
        assert again.json()["job"]["id"] == job["id"]
        desk.run_to_end(job["id"])
        listed = (await http.get("/api/v1/jobs", params={"page_size": 1})).json()
        assert [one["state"] for one in listed["jobs"]] == ["completed"]
        path = f"/api/v1/jobs/{job['id']}"
        dead = await http.get(f"{path}/labels", params={"state": "dead", "with_records": "true"})
        (unit,) = dead.json()["units"]
        assert unit["record"]["state"] == unit["state"] == "dead"
        one = await http.get(f"{path}/layers/{unit['layer']}/units/{unit['unit']}")
        assert one.json() == {"unit": unit}
        assert (await http.delete(path)).json() == {}
        assert (await http.get(path)).status_code == 404


@pytest.mark.parametrize(
    ("verb", "path", "body", "status", "title", "detail"),
    [
        ("GET", "/jobs/nosuch", None, 404, "NotFound", "There is no job 'nosuch'"),
        ("GET", "/jobs?page_size=1001", None, 400, "RequestTooLarge", "1001 as its page_size"),
        ("GET", "/jobs?page_size=x", None, 400, "InvalidInput", "page_size"),
        ("GET", "/jobs?pages=3", None, 400, "InvalidInput", "pages: Extra inputs"),
        ("GET", "/jobs?page_token=x", None, 400, "InvalidInput", "next_page_token"),
        ("GET", "/nowhere", None, 404, "NotFound", "nothing at /api/v1/nowhere"),
        ("PUT", "/jobs", None, 405, "InvalidInput", "Method Not Allowed"),
        ("POST", "/jobs", {"request_id": 3}, 400, "InvalidInput", "request_id"),
        ("POST", "/jobs", {"request_id": "r", "spec": {"model": "tinny"}}, 400, "InvalidInput", ""),
        ("POST", "/jobs", {"request_id": "\ud800"}, 400, "InvalidInput", "request_id"),
        ("POST", "/estimates", {"spec": {"seed": -1}}, 400, "InvalidInput", "spec.seed"),
    ],
)
async def test_errors_are_problems(
    desk: Desk, verb: str, path: str, body: Any, status: int, title: str, detail: str
) -> None:
    async with serve_web(desk) as http:
        content = json.dumps(body) if body else None
        headers = {"content-type": "application/json"}
        answer = await http.request(verb, f"/api/v1{path}", content=content, headers=headers)
    assert answer.headers["content-type"] == MEDIA_TYPE
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["title"]) == (status, status, title)
    assert detail in problem["detail"]


async def test_error_that_nobody_expected_is_told_without_details(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("dnd_services.coordinator.store.jobs.list_jobs", fail)
    async with serve_web(desk) as http:
        answer = await http.get("/api/v1/jobs")
    assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL")
    assert "secret" not in answer.text


def test_every_error_has_a_status() -> None:
    assert set(CODES.values()) <= set(STATUSES)
    assert problems.answer(DndError("x", retry_after_s=0.2)).headers["retry-after"] == "1"


def test_routes_are_of_methods_that_there_are() -> None:
    for route in ROUTES:
        fields = route.descriptor.input_type.fields_by_name
        assert set(route.path_fields) <= set(fields)


@pytest.fixture
def done(desk: Desk, spec: JobSpec) -> str:
    """A job of a few units that has ended."""
    job_id = desk.create(replace(spec, layers=spec.layers[1:]))
    desk.run_to_end(job_id)
    return job_id


def events_of(text: str) -> list[tuple[str, Any]]:
    """(id, data) of server-sent events."""
    found = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((lines.get("id", ""), json.loads(lines["data"])))
    return found


async def test_watch_goes_on_where_it_was_when_it_is_resumed(desk: Desk, done: str) -> None:
    async with serve_web(desk) as http:
        path = f"/api/v1/jobs/{done}/events"
        answer = await http.get(path)
        assert answer.headers["content-type"].startswith("text/event-stream")
        ((token, event),) = events_of(answer.text)
        assert (event["job"]["state"], event["resume_token"]) == ("completed", token)
        again = await http.get(path, headers={"last-event-id": token})
        assert (again.status_code, again.text) == (200, "")  # nothing has changed since
        fake = await http.get(path, params={"resume_token": "x"})
        assert (fake.status_code, fake.json()["title"]) == (400, "InvalidInput")
        other = await http.get("/api/v1/jobs/other/events", params={"resume_token": token})
        assert f"is of job {done}" in other.json()["detail"]
        missing = await http.get("/api/v1/jobs/nosuch/events")
        assert missing.status_code == 404


async def test_export_has_the_job_and_all_units(desk: Desk, done: str) -> None:
    async with serve_web(desk) as http:
        answer = await http.get(f"/api/v1/jobs/{done}/export")
        head, *units = [json.loads(line) for line in answer.text.splitlines()]
    assert head["job"]["id"] == done
    records = [one["unit"]["record"] for one in units]
    for record in records:
        del record["job"], record["timings"]
    assert records == desk.records(done)


async def test_units_are_found_by_percentile_and_label(desk: Desk, spec: JobSpec) -> None:
    job_id = desk.create(replace(spec, layers=spec.layers[1:], overrides=CALIBRATED))
    desk.run_to_end(job_id)
    async with serve_web(desk) as http:

        async def units(**params: Any) -> list[Any]:
            answer = await http.get(f"/api/v1/jobs/{job_id}/labels", params=params)
            assert answer.status_code == 200, answer.text
            return list(answer.json()["units"])

        everything = await units(with_records=True)
        percentiles = sorted(one["percentile"] for one in everything)
        assert percentiles == sorted(one["record"]["percentile"] for one in everything)
        middle = percentiles[1]
        low, high = await units(max_percentile=middle), await units(min_percentile=middle)
        assert {one["unit"] for one in low} | {one["unit"] for one in high} == {
            one["unit"] for one in everything
        }
        assert all(one["percentile"] <= middle for one in low)
        assert all(one["percentile"] >= middle for one in high)
        label = everything[0]["labels"][0]
        named = await units(label_text=label.upper())
        assert everything[0]["unit"] in [one["unit"] for one in named]
        assert all(any(label in other for other in one["labels"]) for one in named)
        assert await units(label_text='", "') == await units(label_text="%") == []
        first = await http.get(f"/api/v1/jobs/{job_id}/labels", params={"page_size": 1})
        token = first.json()["next_page_token"]
        assert [one["unit"] for one in await units(page_token=token)] == [3, 4, 9]
        moved = {"page_token": token, "state": "dead"}
        other = await http.get(f"/api/v1/jobs/{job_id}/labels", params=moved)
        assert "same filters" in other.json()["detail"]
        bad = await http.get(f"/api/v1/jobs/{job_id}/labels", params={"min_percentile": 1.5})
        assert bad.json()["detail"] == "min_percentile is 1.5: expected 0 to 1."


async def test_labels_are_searched_by_words_and_by_meaning(
    desk: Desk, done: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve_web(desk) as http:
        listed = (await http.get(f"/api/v1/jobs/{done}/labels")).json()["units"]
        label = listed[0]["labels"][0]

        async def search(**params: Any) -> Any:
            answer = await http.get("/api/v1/search", params=params)
            assert answer.status_code == 200, answer.text
            return answer.json()

        words = " ".join(reversed(label.upper().split()))
        hit = (await search(text=words))["hits"][0]
        assert (hit["job_id"], hit["label"], hit["score"]) == (done, label, 0)
        hits = (await search(text=label, mode="meaning"))["hits"]
        assert hits[0]["label"] == label
        assert hits[0]["score"] == pytest.approx(1, abs=0.01)
        scores = [one["score"] for one in hits]
        assert scores == sorted(scores, reverse=True)
        assert len(hits) == len([one for one in listed if one["labels"]])
        page = await search(text=label, mode="meaning", page_size=1)
        rest = await search(text=label, mode="meaning", page_token=page["next_page_token"])
        assert page["hits"] + rest["hits"] == hits
        assert (await search(text="no such label"))["hits"] == []
        vectors = desk.rows(LabelVectorRow)
        labels = {label for one in listed for label in one["labels"]}
        assert len(vectors) == len(labels)
        monkeypatch.setattr(searching, "MAX_SENTENCES", 0)  # the scorer embeds them
        assert (await search(text=label, mode="meaning"))["hits"][0]["label"] == label
        assert len(desk.rows(LabelVectorRow)) == 2 * len(labels)
        desk.fakes.scorer.faults.call = lambda method: (
            Unavailable("away") if method == "EmbedTexts" else None
        )
        down = await http.get("/api/v1/search", params={"text": "x", "mode": "meaning"})
        assert (down.status_code, down.json()["title"]) == (503, "Unavailable")
        empty = await http.get("/api/v1/search", params={"text": " "})
        assert empty.status_code == 400


async def test_images_of_results_are_answered_and_nothing_else(desk: Desk, done: str) -> None:
    record = desk.records(done)[0]
    refs = [
        record["exemplars"][0]["image"],
        record["candidates"][0]["images"][0],
        record["exemplars"][0]["source"],
    ]
    async with serve_web(desk) as http:  # whoever asks has not read the records before
        path = f"/api/v1/jobs/{done}/images"
        for ref in refs:
            answer = await http.get(f"{path}/{ref}")
            assert answer.headers["content-type"] == "image/png", ref
            assert answer.content == desk.fakes.artifacts.get_bytes(ref)
            assert answer.headers["x-content-type-options"] == "nosniff"
        large = max(refs, key=lambda ref: decode_image(desk.fakes.artifacts.get_bytes(ref)).width)
        small = await http.get(f"{path}/{large}", params={"max_side": 16})
        assert small.headers["content-type"] == "image/webp"
        assert max(decode_image(small.content).size) == 16
        # Artifacts that are no images of the job: its records, and a file that somebody put there.
        stored = desk.rows(UnitRow)[0].outputs["exemplars"].partition("#")[0]
        stranger = desk.fakes.artifacts.put_bytes(desk.fakes.artifacts.get_bytes(refs[0]) + b" ")
        for ref in (stored, stranger, "sha256:" + "0" * 64):
            assert (await http.get(f"{path}/{ref}")).status_code == 404, ref
        too_small = await http.get(f"{path}/{refs[0]}", params={"max_side": 3})
        assert too_small.status_code == 400


@pytest.mark.parametrize(
    "ref",
    [
        "../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "sha256:..%2f..%2fcoordinator.db",
        "sha256:" + "g" * 64,
        "sha256:" + "0" * 63 + "%00",
        "file:%2f%2f%2fetc%2fpasswd",
    ],
)
async def test_references_lead_to_no_other_files(
    desk: Desk, done: str, ref: str, servicer: CoordinatorServicer
) -> None:
    async with serve_web(desk) as http:
        answer = await http.get(f"/api/v1/jobs/{done}/images/{ref}")
        assert answer.status_code in (400, 404)
        assert answer.headers["content-type"] == MEDIA_TYPE
    request = pb2.GetImagesRequest(job_id=done, refs=[unquote(ref)])
    with pytest.raises(NotFound, match="have no image"):
        await servicer.GetImages(request, None)


async def test_oversized_body_is_refused(desk: Desk) -> None:
    async with serve_web(desk) as http:
        body = {"name": "x", "text": "a" * (guarding.MAX_BODY_BYTES + 1)}
        answer = await http.post("/api/v1/concept-sets", json=body)
    assert (answer.status_code, answer.json()["title"]) == (400, "RequestTooLarge")


async def test_calls_over_rest_are_counted_as_those_over_grpc(
    desk: Desk, spec: JobSpec, servicer: CoordinatorServicer
) -> None:
    metrics, job_id = Metrics(), desk.create(spec)
    calls = Calls(servicer, metrics, "default", None)
    await calls.ask(pb2.GetJobRequest(job_id=job_id), pb2.GetJobResponse)
    with pytest.raises(NotFound):
        await calls.ask(pb2.GetJobRequest(job_id="nosuch"), pb2.GetJobResponse)
    watch = calls.follow(pb2.WatchJobRequest(job_id=job_id), pb2.WatchJobResponse)
    await anext(watch)
    await watch.aclose()  # whoever followed the job has gone
    (family,) = metrics.rpcs.collect()
    assert {
        (sample.labels["method"].rpartition("/")[2], sample.labels["code"]): sample.value
        for sample in family.samples
        if sample.name.endswith("_total")
    } == {("GetJob", "OK"): 1, ("GetJob", "NOT_FOUND"): 1, ("WatchJob", "CANCELLED"): 1}


@asynccontextmanager
async def web_port(desk: Desk) -> AsyncIterator[int]:
    """The port of a web server with real sockets."""
    servicer = make_servicer(desk)
    app = create_app(servicer, Gate(desk.store, desk.settings), Metrics())
    server = serving.WebServer(app, "127.0.0.1", 0)
    await server.start()
    try:
        yield int(server.url.rpartition(":")[2])
    finally:
        await server.close()
        servicer.close()


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server ends the connection."""
    async with asyncio.timeout(20):
        try:
            return await reader.read()
        except ConnectionResetError:  # it was ended while something was still being sent
            return b""


POST = b"POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\n"


async def post(port: int, num_bytes: int) -> bytes:
    """The answer to a request with so many bytes of zeros."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = POST + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % num_bytes
    writer.write(head + bytes(num_bytes))
    answer = await read_to_end(reader)
    writer.close()
    return answer


async def test_slow_requests_are_ended(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarding, "BODY_S", 0.2)
    monkeypatch.setattr(serving, "HEAD_S", 0.2)
    async with web_port(desk) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST + b"Content-Length: 9\r\n\r\n{")
        answer = await read_to_end(reader)
        assert answer.startswith(b"HTTP/1.1 504")
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HT")
        assert await read_to_end(reader) == b""
        writer.close()
        # Nor does a good request buy time for a slow one after it.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await reader.readuntil(b"serving")
        writer.write(b"GET /healthz HT")
        assert b"HTTP" not in await read_to_end(reader)
        writer.close()
        with pytest.raises(BadSetting, match=f"DND_WEB_PORT = {port}"):
            serving.WebServer(create_app(None, None, Metrics()), "127.0.0.1", port)  # type: ignore[arg-type]


async def test_body_without_an_end_is_refused_and_its_connection_ended(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarding, "MAX_BODY_BYTES", 4096)
    async with web_port(desk) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            POST + b"Transfer-Encoding: chunked\r\n\r\n" + 5 * (b"400\r\n" + bytes(1024) + b"\r\n")
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        assert b"connection: close" in head.lower()
        await read_to_end(reader)
        writer.close()


async def test_bodies_of_all_callers_together_are_limited(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarding, "MAX_HELD_BYTES", 4096)
    async with web_port(desk) as port:
        _, first = await asyncio.open_connection("127.0.0.1", port)
        first.write(POST + b"Content-Length: 9000\r\n\r\n" + bytes(4000))
        answer = b""
        while not answer.startswith(b"HTTP/1.1 429"):  # once the first body has come so far
            answer = await post(port, 2000)
        first.close()
        while answer.startswith(b"HTTP/1.1 429"):  # what it held is free again
            answer = await post(port, 2000)
        assert answer.startswith(b"HTTP/1.1 400")  # its body is no JSON


async def test_guessing_tokens_over_http_is_slowed_down(desk: Desk) -> None:
    desk.tune(auth="tokens")
    async with serve_web(desk) as http:
        statuses = []
        for guess in range(MAX_GUESSES + 2):
            headers = {"authorization": f"Bearer dnd_{guess}"}
            answer = await http.get("/api/v1/jobs", headers=headers)
            statuses.append(answer.status_code)
        assert statuses == [401] * MAX_GUESSES + [429] * 2
        assert int(answer.headers["retry-after"]) > 0
        form = await http.post("/login", data={"token": "dnd_next"})
        assert form.status_code == 429


@pytest.mark.parametrize(
    "path",
    ["/api/v1/<script>alert(1)</script>", "/api/v1/jobs/%3Cscript%3Ealert(1)%3C%2Fscript%3E"],
)
async def test_what_a_caller_sends_is_never_answered_as_a_page(desk: Desk, path: str) -> None:
    async with serve_web(desk) as http:
        answer = await http.get(path)
    assert "script" in answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_captions_are_answered_as_data_whatever_they_contain(
    desk: Desk, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    caption = "<img src=x onerror=alert(1)>"
    said = captioner_pb2.Caption(text=caption)
    monkeypatch.setattr(desk.fakes.captioner, "_one", lambda image, num_labels: said)
    job_id = desk.create(replace(spec, layers=spec.layers[1:]))
    desk.run_to_end(job_id)
    async with serve_web(desk) as http:
        answer = await http.get(f"/api/v1/jobs/{job_id}/export")
    assert caption in answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_record_is_made_again_when_the_unit_has_changed(
    desk: Desk, done: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    make = views.record_json

    def count(job: Any, view: Any, *rest: Any) -> str:
        made.append(view.unit)
        return make(job, view, *rest)

    monkeypatch.setattr(views, "record_json", count)
    async with serve_web(desk) as http:
        path = f"/api/v1/jobs/{done}/layers/classifier/units/3"
        first = (await http.get(path)).json()
        assert (await http.get(path)).json() == first
        assert made == [3]
        with desk.store.writing() as session:
            session.execute(update(UnitRow).where(UnitRow.unit == 3).values(auc=0.125))
        assert (await http.get(path)).json()["unit"]["record"]["auc"] == 0.125
        assert made == [3, 3]


def test_records_are_forgotten_when_they_take_too_much_memory(desk: Desk, done: str) -> None:
    made: list[str] = []
    cache = RecordCache(desk.fakes.artifacts, lambda job_id, text: made.append(text))
    job, (first, second, *_) = desk.job(done), desk.units(done)
    cache.get(job, first)
    small = RecordCache(
        desk.fakes.artifacts, lambda job_id, text: made.append(text), len(made[0]) + 10
    )
    for view in (first, first, second, first):
        small.get(job, view)
    assert len(made) == 1 + 3
