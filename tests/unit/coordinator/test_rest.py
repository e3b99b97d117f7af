"""REST: the methods of the API as JSON over HTTP, its errors as problems."""

from __future__ import annotations

import json
from typing import Any

import pytest
from coordinator_api import serve_web
from coordinator_desk import Desk

from dnd.errors import CODES, DndError
from dnd.jobs import JobSpec, spec_to_message
from dnd_services.coordinator.web import json_forms, problems
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
