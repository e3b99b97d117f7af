"""The explorer in Chromium.

Skipped where there is none; with DND_NEEDS_BROWSER=1, which .ci/run sets, that is a failure.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from coordinator_api import make_servicer
from coordinator_desk import Desk
from PIL import Image
from result_samples import LAYERS, make_sample

from dnd.explorer.folder import write_explorer
from dnd.images import encode_png
from dnd.jobs import JobSpec, UnitState
from dnd.report.tables import write_tables
from dnd.serving import Metrics
from dnd_services.coordinator import trying
from dnd_services.coordinator.access import Gate
from dnd_services.coordinator.web.app import create_app
from dnd_services.coordinator.web.serving import WebServer

if os.environ.get("DND_NEEDS_BROWSER") != "1":
    pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect, sync_playwright

NEEDED = os.environ.get("DND_NEEDS_BROWSER") == "1"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]

pytestmark = pytest.mark.skipif(not (CHROMIUM or NEEDED), reason="there is no Chromium")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if not CHROMIUM:
        pytest.fail("DND_NEEDS_BROWSER is set, and there is no Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def site(desk: Desk) -> Iterator[str]:
    """Address of the pages over a desk."""
    servicer = make_servicer(desk)
    server = WebServer(
        create_app(servicer, Gate(desk.store, desk.settings), Metrics()), "127.0.0.1", 0
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(30)
        yield server.url
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
        servicer.close()


def is_wrong(told: Any) -> bool:
    """Whether a page told of an error; a refusal that it shows to people is none."""
    return told.type == "error" and "status of 400" not in told.text


def is_ours(url: str) -> bool:
    return "//127.0.0.1:" in url or url.startswith("file:///")


@pytest.fixture
def page(chromium: Any) -> Iterator[Page]:
    """A page that has had no error and loaded nothing from elsewhere when the test ends."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda told: wrong.append(told.text) if is_wrong(told) else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(  # a page that is left drops what it still loads
        "requestfailed",
        lambda request: (
            None if request.failure == "net::ERR_ABORTED" else wrong.append(f"{request.url} failed")
        ),
    )
    page.on(
        "request",
        lambda request: (
            None if is_ours(request.url) else wrong.append(f"{request.url} was asked for")
        ),
    )
    yield page
    context.close()
    assert wrong == []


def serious_findings(page: Page) -> list[tuple[str, list[str]]]:
    """What axe finds on a page, and where."""
    options = {"preload": not page.url.startswith("file:")}  # of style sheets, by requests
    return [
        (one["id"], [node["html"][:200] for node in one["nodes"]])
        for one in Axe().run(page, options=options).response["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def test_pages_are_accessible_in_light_and_dark_and_fit_a_phone(
    site: str, desk: Desk, job_id: str, page: Page
) -> None:
    unit = next(one for one in desk.units(job_id) if one.state is UnitState.LABELED)
    paths = (
        "/jobs",
        f"/jobs/{job_id}",
        f"/jobs/{job_id}/units?layer={unit.layer}",
        f"/jobs/{job_id}/units/{unit.layer}/{unit.unit}",
        "/search?q=a",
        "/search?q=a&by=meaning",
        f"/jobs/{job_id}/units/classifier/3",
        f"/compare?a={job_id}&b={job_id}&show=all",
        f"/jobs/{job_id}/try?layer={unit.layer}&unit={unit.unit}",
    )
    serious = []
    for path in paths:
        page.set_viewport_size({"width": 1280, "height": 900})
        page.goto(site + path)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            serious += [(path, scheme, *found) for found in serious_findings(page)]
        page.set_viewport_size({"width": 360, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
        page.evaluate("for (const image of document.images) image.loading = 'eager'")
        loaded = "[...document.querySelectorAll('img[src]')].every((image) => image.complete)"
        for _ in range(100):  # the pages' policy forbids the polling of `wait_for_function`
            if page.evaluate(loaded):
                break
            page.wait_for_timeout(100)
        broken = "[...document.querySelectorAll('img[src]')].filter((i) => !i.naturalWidth).length"
        assert page.evaluate(broken) == 0
    assert serious == []


def test_keys_lead_through_units(site: str, job_id: str, page: Page) -> None:
    page.goto(f"{site}/jobs/{job_id}/units?layer=features.conv&state=labeled")
    cards = page.locator(".unitcard")
    page.keyboard.press("j")
    expect(cards.nth(0)).to_be_focused()
    page.keyboard.press("j")
    expect(cards.nth(1)).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(cards.nth(2)).to_be_focused()
    page.keyboard.press("k")
    second = cards.nth(1).get_attribute("href")
    third = cards.nth(2).get_attribute("href")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site}{second}")
    page.keyboard.press("j")
    page.wait_for_url(f"{site}{third}")
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("u")
    page.wait_for_url(f"{site}/jobs/{job_id}/units?layer=features.conv&state=labeled")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.get_by_label("Sort by").select_option("lowest")
    page.wait_for_url("**sort=lowest**")


def test_folder_is_accessible_and_its_labels_are_searched_without_a_server(
    tmp_path: Path, page: Page
) -> None:
    sample = make_sample(3)
    labels = write_tables(sample.job, sample.units, LAYERS, tmp_path)
    index = write_explorer(sample.job, labels, sample.fetch, tmp_path / "explorer")
    page.goto(index.as_uri())
    page.get_by_role("link", name="Search", exact=True).click()
    page.get_by_role("searchbox").fill("red")
    expect(page.locator("#found")).to_have_text("3 units")
    expect(page.locator("#hits .unitcard")).to_have_count(3)
    page.get_by_role("searchbox").fill("SQUARE 2")
    expect(page.locator("#found")).to_have_text("1 unit")
    assert serious_findings(page) == []
    page.locator("#hits .unitcard").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("red square 2")
    page.goto((index.parent / "units" / "0-unit-1.html").as_uri())
    assert serious_findings(page) == []
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_picture_opens_large_and_closes(site: str, desk: Desk, job_id: str, page: Page) -> None:
    unit = next(one for one in desk.units(job_id) if one.state is UnitState.LABELED)
    page.goto(f"{site}/jobs/{job_id}/units/{unit.layer}/{unit.unit}")
    page.locator(".tile .frame").first.click()
    dialog = page.locator("dialog")
    expect(dialog).to_be_visible()
    expect(dialog.locator("figcaption")).to_contain_text("Exemplar 1")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_words_and_a_picture_are_tried(
    site: str, desk: Desk, job_id: str, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trying, "LEAST_SHARE", 0.0)
    unit = next(one for one in desk.units(job_id) if one.state is UnitState.LABELED)
    page.goto(f"{site}/jobs/{job_id}/try?layer={unit.layer}&unit={unit.unit}")
    page.get_by_label("Words to draw").fill("a <b>red</b> square")
    page.get_by_role("button", name="Draw it").click()
    expect(page.get_by_role("heading", name="Drawings of “a <b>red</b> square”")).to_be_visible(
        timeout=20_000
    )
    picture = encode_png(Image.new("RGB", (60, 40), "red"))
    page.locator("input[type=file]").set_input_files(
        {"name": "red.png", "mimeType": "image/png", "buffer": picture}
    )
    expect(page.locator(".answer .unitcard").first).to_be_visible(timeout=20_000)
    page.locator("input[type=file]").set_input_files(
        {"name": "no.png", "mimeType": "image/png", "buffer": b"nothing"}
    )
    expect(page.locator(".drop .found")).to_contain_text("Not a readable")


def test_job_page_follows_a_job_until_it_has_ended(
    site: str, desk: Desk, spec: JobSpec, page: Page
) -> None:
    made = desk.create(spec)
    page.goto(f"{site}/jobs/{made}")
    expect(page.locator("#live")).to_contain_text("0 of 20 units have ended")
    desk.run_to_end(made)
    expect(page.locator("#live .pill").first).to_have_text("completed", timeout=20_000)
