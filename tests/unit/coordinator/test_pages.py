"""The explorer's pages, rendered through the application: what they show, refuse and escape."""

from __future__ import annotations

import base64
import io
import re
import threading
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from coordinator_api import serve_web
from coordinator_desk import Clock, Desk
from PIL import Image

from dnd.errors import BadImage, Unavailable
from dnd.explorer.site import ASSETS
from dnd.images import encode_png
from dnd.jobs import JobSpec, LayerUnits, UnitState
from dnd.stages import Captions, Description
from dnd_services.coordinator import outputs, searching, trying
from dnd_services.coordinator.models import JobRow, UnitRow
from dnd_services.coordinator.store import reading
from dnd_services.coordinator.web.pages import class_names
from dnd_services.coordinator.web.pages.class_names import ASK_AGAIN_S, ClassNames

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
CONV = "features.conv"


class Document(HTMLParser):
    """What a page loads and links to, and whether something in it could run."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.inline: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "script" and not values.get("src"):
            self.inline.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("src", "action") or (name == "href" and tag == "link"):
                self.loads.append(value or "")
            elif name == "href":
                self.links.append(value or "")
            elif name.startswith("on") or name == "style":
                self.inline.append(f"{tag} {name}")

    def handle_data(self, data: str) -> None:
        self.text += data


def change(desk: Desk, job_id: str, unit: int, **values: Any) -> None:
    """Writes into the row of a unit of the convolution."""
    with desk.store.writing() as session:
        row = session.query(UnitRow).filter_by(job_id=job_id, place=0, unit=unit).one()
        for name, value in values.items():
            setattr(row, name, value)


def labelled(desk: Desk, job_id: str) -> list[int]:
    """Labelled units of the convolution."""
    return [
        view.unit
        for view in desk.units(job_id)
        if view.layer == CONV and view.state is UnitState.LABELED
    ]


async def get(desk: Desk, path: str, status: int = 200, **headers: str) -> Any:
    async with serve_web(desk) as http:
        answer = await http.get(path, headers=headers)
    assert answer.status_code == status, answer.text[:2000]
    return answer


async def test_every_page_loads_only_its_own_assets_and_runs_nothing_inline(
    desk: Desk, job_id: str
) -> None:
    unit = labelled(desk, job_id)[0]
    pages = (
        "/jobs",
        f"/jobs/{job_id}",
        f"/jobs/{job_id}/units",
        f"/jobs/{job_id}/units/{CONV}/{unit}",
        "/search?q=a",
        "/search?q=a&by=meaning",
        f"/compare?a={job_id}&b={job_id}&show=all",
        f"/jobs/{job_id}/try?layer={CONV}&unit={unit}",
    )
    async with serve_web(desk) as http:
        for path in pages:
            answer = await http.get(path)
            assert answer.status_code == 200, (path, answer.text[:500])
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            found = Document(answer.text)
            assert found.inline == []
            assert len(found.ids) == len(set(found.ids))
            assert all(one.startswith("/") for one in found.loads), found.loads
            for address in dict.fromkeys(found.loads + found.links):
                if not address.startswith("#"):
                    loaded = await http.get(address)
                    assert loaded.status_code < 400, (path, address, loaded.text[:300])


async def test_root_leads_to_the_jobs(desk: Desk) -> None:
    answer = await get(desk, "/", 307)
    assert answer.headers["location"] == "/jobs"


async def test_page_of_jobs_says_how_to_start_when_there_are_none(desk: Desk) -> None:
    assert "dnd label" in (await get(desk, "/jobs")).text


async def test_labels_captions_and_errors_are_escaped_on_every_page(
    desk: Desk, job_id: str
) -> None:
    unit, failed = labelled(desk, job_id)[:2]
    row = next(one for one in desk.units(job_id) if (one.layer, one.unit) == (CONV, unit)).row
    assert row is not None
    store = desk.fakes.artifacts
    captions = outputs.load(store, row.outputs["caption"], Captions)
    captions = replace(captions, texts=(EVIL,) * len(captions.texts))
    scored = outputs.load(store, row.outputs["score"], Description)
    candidates = tuple(
        replace(one, candidate=replace(one.candidate, text=EVIL), dropped="")
        if not one.dropped
        else replace(one, dropped=EVIL)
        for one in scored.candidates
    )
    changed = {
        "caption": outputs.save(store, captions),
        "score": outputs.save(store, replace(scored, candidates=candidates)),
    }
    change(desk, job_id, unit, labels=[EVIL, EVIL], outputs={**row.outputs, **changed})
    change(desk, job_id, failed, state="failed", labels=[], error=EVIL, stage="caption")
    with desk.store.writing() as session:
        job = session.get_one(JobRow, job_id)
        job.error = EVIL
    paths = {
        f"/jobs/{job_id}": 1,
        f"/jobs/{job_id}/units": 2,
        f"/jobs/{job_id}/units/{CONV}/{unit}": 10,
        f"/jobs/{job_id}/units/{CONV}/{failed}": 1,
        "/search?q=script": 1,
        "/search?q=script&by=meaning": 1,
        f"/compare?a={job_id}&b={job_id}&show=all": 2,
    }
    for path, least in paths.items():
        html = (await get(desk, path)).text
        assert "<script>alert" not in html
        assert "<img src=x" not in html
        assert html.count("&lt;script&gt;alert(1)") >= least, path
        assert Document(html).inline == []


@pytest.mark.parametrize("query", ["q", "layer", "state", "sort", "low", "page"])
async def test_parameters_are_escaped_too(desk: Desk, job_id: str, query: str) -> None:
    async with serve_web(desk) as http:
        for path in (f"/jobs/{job_id}/units", "/search", f"/jobs/{job_id}/units/{CONV}/5"):
            html = (await http.get(path, params={query: EVIL, "in": f"{query}={EVIL}"})).text
            assert "<script>alert" not in html
            assert Document(html).inline == []


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/jobs/nosuch", 404, "There is no job &#39;nosuch&#39;"),
        ("/jobs/nosuch/units", 404, "There is no job"),
        ("/jobs/JOB/units?layer=nosuch", 404, "has no layer"),
        ("/jobs/JOB/units?state=nosuch", 400, "expected one of pending"),
        ("/jobs/JOB/units?sort=nosuch", 400, "expected one of unit"),
        ("/jobs/JOB/units?low=2", 400, "expected a number from 0 to 1"),
        ("/jobs/JOB/units?page=0", 400, "expected a number from 1"),
        (f"/jobs/JOB/units?q={'a' * 201}", 400, "expected at most 200"),
        ("/jobs/JOB/units/features.conv/9999", 404, "has no unit 9999"),
        ("/jobs/JOB/units/nosuch/3", 404, "has no layer"),
        ("/jobs/JOB/units/features.conv/99999999999999999999", 404, "has no unit"),
        ("/compare?a=nosuch&b=JOB", 404, "There is no job"),
        ("/jobs/JOB/try?layer=nosuch", 404, "has no layer"),
        ("/search?q=a&by=nosuch", 400, "expected words or meaning"),
        ("/compare?show=nosuch", 400, "expected changed, same or all"),
        ("/compare?page=0", 400, "page: "),
        ("/static/nosuch.css", 404, "nothing at /static/nosuch.css"),
        ("/jobs/JOB/units/features.conv/5/images/sha256:0?side=320", 404, "shows no image"),
        ("/jobs/JOB/units/features.conv/5/images/..%2F..%2Fetc%2Fpasswd", 404, "nothing at"),
        ("/jobs/JOB/units/features.conv/5/images/x?side=33", 400, "expected one of 96"),
        ("/jobs/JOB/nosuch", 404, "nothing at"),
        ("/nosuch", 404, "nothing at"),
    ],
)
async def test_errors_are_pages(desk: Desk, job_id: str, path: str, status: int, says: str) -> None:
    answer = await get(desk, path.replace("JOB", job_id), status, accept="text/html,*/*;q=0.8")
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"]
    assert says in answer.text
    assert 'href="/jobs"' in answer.text


async def test_unknown_address_is_a_problem_for_who_asks_for_no_page(desk: Desk) -> None:
    for path, accept in (("/nosuch", "application/json"), ("/api/v1/nosuch", "text/html")):
        answer = await get(desk, path, 404, accept=accept)
        assert answer.headers["content-type"] == "application/problem+json"


async def test_another_tenant_sees_nothing(desk: Desk, job_id: str) -> None:
    unit = labelled(desk, job_id)[0]
    page = (await get(desk, f"/jobs/{job_id}/units/{CONV}/{unit}")).text
    pictures = re.findall(r'src="(/jobs/[^"]+)"', page)
    assert len(pictures) > 10
    paths = [f"/jobs/{job_id}", f"/jobs/{job_id}/units", f"/jobs/{job_id}/units/{CONV}/{unit}"]
    async with serve_web(desk) as http:
        for path in (*paths, *pictures, f"/jobs/{job_id}/units/{CONV}/{unit}/mosaic"):
            answer = await http.get(path.replace("&amp;", "&"), headers={"x-dnd-tenant": "other"})
            assert answer.status_code == 404, path
        label = desk.units(job_id)[0].row
        assert label is not None
        found = await http.get("/search?q=a", headers={"x-dnd-tenant": "other"})
        assert "No label of any job" in found.text
        assert job_id not in (await http.get("/jobs", headers={"x-dnd-tenant": "other"})).text


async def test_image_of_another_unit_or_an_artifact_that_is_no_image_is_not_shown(
    desk: Desk, job_id: str
) -> None:
    unit = labelled(desk, job_id)[0]
    view = next(one for one in desk.units(job_id) if (one.layer, one.unit) == (CONV, unit))
    assert view.row is not None
    ref = view.row.outputs["caption"]
    await get(desk, f"/jobs/{job_id}/units/{CONV}/{unit}/images/{ref}?side=320", 404)


async def test_pictures_are_small_webp_that_browsers_keep(desk: Desk, job_id: str) -> None:
    unit = labelled(desk, job_id)[0]
    page = (await get(desk, f"/jobs/{job_id}/units/{CONV}/{unit}")).text
    address = re.findall(r'src="(/jobs/[^"]+side=320)"', page)[0]
    for path, side in ((address, 320), (f"/jobs/{job_id}/units/{CONV}/{unit}/mosaic?v=1", 288)):
        answer = await get(desk, path)
        assert answer.headers["content-type"] == "image/webp"
        assert "immutable" in answer.headers["cache-control"]
        assert "private" in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert max(Image.open(io.BytesIO(answer.content)).size) <= side
        tag = {"if-none-match": answer.headers["etag"]}
        assert (await get(desk, path, 304, **tag)).content == b""


@pytest.mark.parametrize("name", ASSETS)
async def test_assets_are_kept_for_ever(desk: Desk, name: str) -> None:
    answer = await get(desk, f"/static/{name}")
    assert answer.headers["content-type"] == ASSETS[name][2]
    assert "immutable" in answer.headers["cache-control"]


def units_on(html: str) -> list[int]:
    """Units of the cards of a page, in order."""
    return [
        int(re.search(r"/(\d+)(\?|$)", address).group(1))  # type: ignore[union-attr]
        for address in re.findall(r'class="unitcard(?: [a-z]+)?" href="([^"]+)"', html)
    ]


async def test_units_are_sorted_and_filtered(desk: Desk, job_id: str) -> None:
    some = labelled(desk, job_id)
    for place, unit in enumerate(some):
        change(
            desk,
            job_id,
            unit,
            percentile=(place + 1) / (len(some) + 1),
            labels=[f"thing {chr(ord('z') - place)}", "näher 100%_"],
        )

    async def shown(query: str) -> list[int]:
        return units_on((await get(desk, f"/jobs/{job_id}/units?layer={CONV}&{query}")).text)

    everything = list(range(4, 20))
    assert await shown("") == everything
    assert (await shown("sort=percentile"))[: len(some)] == some[::-1]
    assert (await shown("sort=lowest"))[: len(some)] == some
    assert [unit for unit in await shown("sort=label") if unit in some] == some[::-1]
    assert sorted(await shown("sort=auc")) == everything
    assert await shown("state=labeled") == some
    assert await shown("q=THING+z") == some[:1]
    assert await shown("q=näher") == some
    assert await shown("q=100%25_") == some
    assert await shown("q=%25") == some
    assert await shown("q=nothing") == []
    high = [unit for place, unit in enumerate(some) if (place + 1) / (len(some) + 1) >= 0.5]
    assert await shown("low=0.5") == high
    assert await shown("high=0.5") == [unit for unit in some if unit not in high]
    dead = await shown("state=dead")
    assert len(dead) == 1
    assert dead[0] not in some


async def test_neighbours_of_a_unit_are_those_of_the_list_it_was_found_in(
    desk: Desk, job_id: str
) -> None:
    some = labelled(desk, job_id)
    for place, unit in enumerate(some):
        change(desk, job_id, unit, percentile=1 - place / 100)
    query = "layer%3Dfeatures.conv%26sort%3Dlowest"
    html = (await get(desk, f"/jobs/{job_id}/units/{CONV}/{some[1]}?in={query}")).text
    before, after = re.findall(r'rel="(?:prev|next)" href="[^"]+/(\d+)\?', html)
    assert (int(before), int(after)) == (some[2], some[0])
    plain = (await get(desk, f"/jobs/{job_id}/units/{CONV}/4")).text
    assert 'rel="prev"' not in plain
    assert re.search(rf'rel="next" href="/jobs/{job_id}/units/features.conv/5"', plain)


async def test_labels_are_searched_by_meaning(
    desk: Desk, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "MAX_SENTENCES", 0)  # the scorer embeds them
    everything = [view for view in desk.units(job_id) if view.row and view.row.labels]
    assert everything[0].row is not None
    label = everything[0].row.labels[0]
    html = (await get(desk, f"/search?q={label}&by=meaning")).text
    cosines = [float(found) for found in re.findall(r"cosine (-?[\d.]+)", html)]
    assert len(cosines) == len(everything)
    assert cosines[0] == pytest.approx(1, abs=0.01)
    assert cosines == sorted(cosines, reverse=True)
    assert '<option value="meaning" selected>' in html
    assert f"The {len(everything)} nearest" in html
    assert f"{label}, cosine 1.00" in html
    assert "cosine" not in (await get(desk, f"/search?q={label}")).text
    async with serve_web(desk) as http:
        other = await http.get(f"/search?q={label}&by=meaning", headers={"x-dnd-tenant": "other"})
    assert job_id not in other.text
    desk.fakes.scorer.faults.call = lambda method: Unavailable("away")
    assert "away" in (await get(desk, f"/search?q={label}&by=meaning", 503)).text


async def test_classes_of_a_classifier_are_named_where_the_network_names_them(
    desk: Desk, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_names, "WAIT_S", 60.0)
    unit = next(
        view.unit
        for view in desk.units(job_id)
        if view.layer == "classifier" and view.row and view.row.labels
    )
    with desk.store.writing() as session:
        layers = {layer.layer: layer.place for layer in reading.read_layers(session, job_id)}
        row = session.query(UnitRow).filter_by(job_id=job_id, place=layers["classifier"], unit=unit)
        row.one().labels = ["a class of its own"]
    html = (await get(desk, f"/jobs/{job_id}/units?layer=classifier")).text
    assert f'<span title="class {unit}">class {unit}</span> <span class="pill hit">hit' in html
    html = (await get(desk, f"/jobs/{job_id}/units/classifier/{unit}")).text
    assert f'true class</span> class {unit} <span class="pill' in html
    assert "true class" not in (await get(desk, f"/jobs/{job_id}/units/{CONV}/5")).text
    # Without the service the pages do without the names.
    desk.fakes.activations.faults.call = lambda method: (
        Unavailable("away") if method == "ListLayers" else None
    )
    html = (await get(desk, f"/jobs/{job_id}/units/classifier/{unit}")).text
    assert "true class" not in html


def test_class_names_are_asked_for_once_and_again_when_the_network_was_away(
    desk: Desk, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_names, "WAIT_S", 60.0)
    calls: list[str] = []

    def count(method: str) -> Unavailable | None:
        calls.append(method)
        return Unavailable("away") if len(calls) == 1 else None

    desk.fakes.activations.faults.call = count
    clock = Clock()
    names, job = ClassNames(clock), desk.job(job_id)
    assert names.of(job, desk.services) == names.of(job, desk.services) == {}
    assert len(calls) == 1
    clock.now += ASK_AGAIN_S + 1
    assert names.of(job, desk.services)["classifier"][3] == "class 3"
    clock.now += 1e9
    assert list(names.of(job, desk.services)) == ["classifier"]
    assert len(calls) == 2
    job.frozen = {**job.frozen, "digests": {"target": "other weights"}}
    assert names.of(job, desk.services) == {}


async def test_units_come_in_pages_when_nothing_has_been_written_about_them(
    desk: Desk, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dnd_services.coordinator.web.pages.routes.UNITS_ON_A_PAGE", 6)
    made = desk.create(spec)
    first = (await get(desk, f"/jobs/{made}/units")).text
    last = (await get(desk, f"/jobs/{made}/units?page=4")).text
    assert units_on(first) == [4, 5, 6, 7, 8, 9]
    assert units_on(last) == [4, 9]
    assert "20 units" in first
    assert "not yet" in first
    assert 'aria-label="Page 4"' in first
    assert "No unit fits" in (await get(desk, f"/jobs/{made}/units?page=9")).text
    assert "No unit fits" in (await get(desk, f"/jobs/{made}/units?state=dead")).text
    assert "not ended yet" in (await get(desk, f"/jobs/{made}/units/{CONV}/7")).text


async def test_two_jobs_are_compared_unit_by_unit(
    desk: Desk, spec: JobSpec, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = (LayerUnits("classifier", (0, 3)), LayerUnits(CONV, tuple(range(8, 24))))
    second = desk.create(replace(spec, layers=layers), request_id="second")
    desk.run_to_end(second)
    both = [unit for unit in labelled(desk, job_id) if unit in labelled(desk, second)]
    change(desk, job_id, both[0], labels=["old words"])
    change(desk, job_id, both[1], labels=[])

    async def shown(show: str) -> list[tuple[str, str]]:
        html = (await get(desk, f"/compare?a={job_id}&b={second}&show={show}")).text
        return re.findall(r'class="at"><span class="mono">([^<]+)</span> (\d+)<', html)

    changed = [(CONV, str(unit)) for unit in both[:2]]
    everything = [(CONV, str(unit)) for unit in range(8, 20)]
    everything += [("classifier", "0"), ("classifier", "3")]
    assert await shown("changed") == changed
    assert await shown("all") == everything
    same = await shown("same")
    assert set(same) < set(everything)
    assert not set(same) & set(changed)
    page = (await get(desk, f"/compare?a={job_id}&b={second}")).text
    assert "old words" in page
    assert f"{len(same)} of {len(same) + 1} (" in page
    assert "Label in the second only</dt><dd>1<" in page
    monkeypatch.setattr("dnd_services.coordinator.web.pages.routes.PAIRS_ON_A_PAGE", 1)
    assert await shown("changed") == changed[:1]
    assert await shown("changed&page=2") == changed[1:]
    assert "no unit in common" not in page


async def test_job_page_is_fetched_again_in_part_until_the_job_has_ended(
    desk: Desk, spec: JobSpec
) -> None:
    made = desk.create(spec)
    for path in ("/jobs", f"/jobs/{made}"):
        assert f'data-live="{path}"' in (await get(desk, path)).text
        part = await get(desk, path, **{"x-part": "live"})
        assert "<html" not in part.text
        assert "0 of 20" in part.text
        assert "x-ended" not in part.headers
    desk.run_to_end(made)
    for path in ("/jobs", f"/jobs/{made}"):
        assert "data-live" not in (await get(desk, path)).text
        assert (await get(desk, path, **{"x-part": "live"})).headers["x-ended"]


async def test_job_page_lists_failures_with_their_reasons(desk: Desk, spec: JobSpec) -> None:
    desk.fakes.captioner.faults.item = lambda item: BadImage("It shows <nothing>.")
    made = desk.create(replace(spec, seed=8))
    desk.run_to_end(made)
    html = (await get(desk, f"/jobs/{made}")).text
    assert "Failures" in html
    assert "It shows &lt;nothing&gt;." in html
    assert f"/jobs/{made}/units/{CONV}/" in html


def picture() -> bytes:
    return encode_png(Image.new("RGB", (64, 40), "red"))


async def test_labelled_units_light_up_when_a_picture_excites_them(
    desk: Desk, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trying, "LEAST_SHARE", 0.0)
    async with serve_web(desk) as http:
        answer = await http.post(
            f"/jobs/{job_id}/try", content=picture(), headers={"x-part": "try"}
        )
    assert answer.status_code == 200, answer.text
    shown = units_on(answer.text)
    assert len(shown) == sum(bool(view.row and view.row.labels) for view in desk.units(job_id))
    pictures = re.findall(r'src="data:image/webp;base64,([^"]+)"', answer.text)
    assert len(pictures) == len(shown)
    assert Image.open(io.BytesIO(base64.b64decode(pictures[0]))).size == (64, 40)
    monkeypatch.setattr(trying, "LEAST_SHARE", 2.0)
    async with serve_web(desk) as http:
        answer = await http.post(
            f"/jobs/{job_id}/try", content=picture(), headers={"x-part": "try"}
        )
    assert "No labelled unit of this job responds" in answer.text


async def test_drawings_of_words_are_shown_beside_the_exemplars(desk: Desk, job_id: str) -> None:
    unit = labelled(desk, job_id)[0]
    async with serve_web(desk) as http:
        answer = await http.post(
            f"/jobs/{job_id}/units/{CONV}/{unit}/try",
            content=f"  red {EVIL} ".encode(),
            headers={"x-part": "try"},
        )
    assert answer.status_code == 200, answer.text
    assert Document(answer.text).inline == []
    assert "<script>alert" not in answer.text
    assert answer.text.count('alt="Drawing of red') == 3
    assert answer.text.count('alt="Exemplar') == 5


@pytest.mark.parametrize(
    ("path", "body", "part", "status", "says"),
    [
        ("/jobs/JOB/try", b"no picture", "try", 400, "Not a readable"),
        ("/jobs/JOB/try", picture(), "", 400, "own page"),
        ("/jobs/nosuch/try", picture(), "try", 404, "There is no job"),
        ("/jobs/JOB/try", bytes(17 * 2**20), "try", 400, "more than 16 MiB"),
        ("/jobs/JOB/units/features.conv/8/try", b" ", "try", 400, "expected 1 to 100"),
        ("/jobs/JOB/units/features.conv/8/try", b"a" * 101, "try", 400, "expected 1 to 100"),
        ("/jobs/JOB/units/features.conv/8/try", b"a" * 401, "try", 400, "more than 400 bytes"),
        ("/jobs/JOB/units/features.conv/999/try", b"a", "try", 404, "has no unit 999"),
    ],
)
async def test_what_cannot_be_tried_is_said(
    desk: Desk, job_id: str, path: str, body: bytes, part: str, status: int, says: str
) -> None:
    async with serve_web(desk) as http:
        answer = await http.post(
            path.replace("JOB", job_id), content=body, headers={"x-part": part}
        )
    assert answer.status_code == status
    assert says in answer.text


async def test_nothing_is_tried_when_the_index_is_not_there_or_others_are_trying(
    desk: Desk, spec: JobSpec, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = desk.create(replace(spec, seed=9), request_id="early")
    async with serve_web(desk) as http:
        headers = {"x-part": "try"}
        answer = await http.post(f"/jobs/{early}/try", content=picture(), headers=headers)
        assert answer.status_code == 409
        assert "has not indexed" in answer.text
        monkeypatch.setattr(trying, "_turns", threading.BoundedSemaphore(1))
        with trying.turn():
            answer = await http.post(f"/jobs/{job_id}/try", content=picture(), headers=headers)
        assert "Others are trying" in answer.text
