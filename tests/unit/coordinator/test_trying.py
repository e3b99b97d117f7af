"""Try it over the API: what a picture excites, what drawings of words do, and what they cost."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from coordinator_api import make_servicer, serve_web
from coordinator_desk import Desk
from PIL import Image
from sqlalchemy import event

from dnd.errors import FailedPrecondition, InvalidInput, Unavailable
from dnd.images import decode_image, encode_png
from dnd.jobs import UnitState
from dnd.v1 import coordinator_pb2 as pb2
from dnd_services.coordinator import trying
from dnd_services.coordinator.budgets import Budgets, TenantRules
from dnd_services.coordinator.servicer import CoordinatorServicer
from dnd_services.coordinator.store.spending import read_usage, tenant_key

CONV = "features.conv"
PICTURE = encode_png(Image.new("RGB", (640, 400), "red"))


def labelled(desk: Desk, job_id: str) -> int:
    """A labelled unit of the convolution."""
    views = desk.units(job_id)
    return next(one.unit for one in views if (one.layer, one.state) == (CONV, UnitState.LABELED))


def num_drawn(desk: Desk, tenant: str = "default") -> int:
    """Drawings that are counted for a tenant."""
    with desk.store.reading() as session:
        return read_usage(session, [tenant_key(tenant)])[tenant_key(tenant)].num_images


async def test_excited_units_stand_beside_their_exemplars(
    desk: Desk, job_id: str, servicer: CoordinatorServicer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trying, "LEAST_SHARE", 0.0)
    request = pb2.TryImageRequest(image=PICTURE)  # the newest job
    units = (await servicer.TryImage(request, None)).units
    labels = {
        (view.layer, view.unit): view.row.labels[0]
        for view in desk.units(job_id)
        if view.row and view.row.labels
    }
    assert {(one.layer, one.unit): one.label for one in units} == labels
    records = {(one["layer"], one["unit"]): one for one in desk.records(job_id)}
    for one in units:
        exemplars = [e["activation"] for e in records[one.layer, one.unit]["exemplars"]]
        assert one.weakest_exemplar == pytest.approx(min(exemplars))
        assert one.strongest_exemplar == pytest.approx(max(exemplars))
        assert 0 <= one.share <= 1
        assert max(decode_image(one.map).size) == trying.SIDE
    # The level is linear in the activation: what excites as its exemplars do is at 1.
    lit = trying.Lit(CONV, 4, "x", 3.0, 1.0, 2.0, 1.0, np.zeros((7, 7)))
    small = decode_image(encode_png(Image.new("RGB", (8, 8))))
    assert trying.excited_unit(lit, small, [2.0, 4.0]).exemplar_level == pytest.approx(1)
    assert trying.excited_unit(lit, small, [5.0]).exemplar_level == pytest.approx(0.5)
    for useless in ([], [1.0]):  # none, or none above the probe images' mean
        assert trying.excited_unit(lit, small, useless).exemplar_level is None


def test_unit_that_is_excited_is_shown_behind_more_unusual_ones_that_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trying, "NUM_SHOWN", 1)
    units = (trying.Labelled(0, "seldom"), trying.Labelled(1, "often"))
    # A tenth of the probe images excite the first unit more than the picture, which lies far above
    # its mean; none excite the second more.
    probe = np.array([[0.0] * 90 + [9.0] * 10, [0.0, 1.0] * 50])
    values = np.zeros((1 + trying.GRID**2, 2))
    values[0] = (8.0, 1.5)
    (lit,) = trying._excited(trying.LabelledLayer("layer", "", units), values, probe)
    assert (lit.unit, lit.share) == (1, 1.0)


def test_map_is_bright_where_covering_lowers_the_activation() -> None:
    drops = np.zeros((trying.GRID, trying.GRID))
    drops[0, 0] = 2.0
    image = Image.new("RGB", (70, 70), "black")
    lit = trying.Lit("layer", 0, "x", 1.0, 1.0, 1.0, 0.0, drops)
    shown = decode_image(trying.excited_unit(lit, image, []).map)
    red, _, blue = shown.getpixel((2, 2))  # type: ignore[misc]
    assert red > blue + 30
    red, _, blue = shown.getpixel((60, 60))  # type: ignore[misc]
    assert abs(red - blue) < 10


async def test_drawings_of_words_count_for_the_tenant_and_for_no_job(
    desk: Desk, job_id: str, servicer: CoordinatorServicer
) -> None:
    before, of_job = num_drawn(desk), desk.progress(job_id).used.num_images
    unit = labelled(desk, job_id)
    request = pb2.TryWordsRequest(job_id=job_id, layer=CONV, unit=unit, words="  a  red door ")
    answer = await servicer.TryWords(request, None)
    assert answer.words == "a red door"
    values = [one.activation for one in answer.drawings]
    assert values == sorted(values, reverse=True)
    assert len(values) == 3
    assert len(answer.exemplars) == 5
    weakest = answer.exemplars[-1].activation
    assert answer.num_above == sum(value >= weakest for value in values)
    assert decode_image(answer.drawings[0].image).size[0] <= trying.SHOWN_SIDE
    assert num_drawn(desk) == before + 3
    assert desk.progress(job_id).used.num_images == of_job


async def test_words_that_a_job_has_drawn_are_drawn_by_nobody_again(
    desk: Desk, job_id: str, servicer: CoordinatorServicer
) -> None:
    before, unit = num_drawn(desk), labelled(desk, job_id)
    view = next(v for v in desk.units(job_id) if (v.layer, v.unit) == (CONV, unit))
    assert view.row is not None
    desk.fakes.synthesizer.faults.call = lambda method: Unavailable("nothing is to be drawn")
    request = pb2.TryWordsRequest(job_id=job_id, layer=CONV, unit=unit, words=view.row.labels[0])
    assert len((await servicer.TryWords(request, None)).drawings) == 3
    assert num_drawn(desk) == before


async def test_words_are_tried_without_a_look_at_the_other_units(
    desk: Desk, job_id: str, servicer: CoordinatorServicer
) -> None:
    unit = labelled(desk, job_id)
    statements: list[str] = []
    event.listen(
        desk.store.engine, "before_cursor_execute", lambda *given: statements.append(given[2])
    )
    request = pb2.TryWordsRequest(job_id=job_id, layer=CONV, unit=unit, words="a red door")
    await servicer.TryWords(request, None)
    of_units = [one for one in statements if "FROM unit" in one]
    assert of_units
    assert all("unit.ordinal = ?" in one for one in of_units)


async def test_nothing_is_drawn_for_a_tenant_that_has_used_its_images(
    desk: Desk, job_id: str
) -> None:
    drawn = num_drawn(desk)
    desk.use(Budgets(tenants={"default": TenantRules(max_images=drawn + 3)}))
    servicer = make_servicer(desk)
    unit = labelled(desk, job_id)
    request = pb2.TryWordsRequest(job_id=job_id, layer=CONV, unit=unit, words="a red door")
    await servicer.TryWords(request, None)
    request.words = "a blue door"
    with pytest.raises(FailedPrecondition, match=f"{drawn + 3} of at most {drawn + 3} images"):
        await servicer.TryWords(request, None)
    assert num_drawn(desk) == drawn + 3
    servicer.close()


@pytest.mark.usefixtures("job_id")
async def test_unit_is_named_with_its_layer(servicer: CoordinatorServicer) -> None:
    with pytest.raises(InvalidInput, match="No layer is given"):
        await servicer.TryWords(pb2.TryWordsRequest(unit=4, words="a dog"), None)


async def test_rest_tries_pictures_and_words(
    desk: Desk, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trying, "LEAST_SHARE", 0.0)
    unit = labelled(desk, job_id)
    async with serve_web(desk) as http:
        path = f"/api/v1/jobs/{job_id}"
        sent = base64.b64encode(PICTURE).decode()
        answer = await http.post(f"{path}/try", json={"image": sent})
        assert answer.status_code == 200, answer.text
        picture = base64.b64decode(answer.json()["units"][0]["map"])
        assert picture[:4] == b"RIFF"
        for bad, says in (("?", "image = '?'"), (sent[:-100], "Not a readable"), ("", "empty")):
            refused = await http.post(f"{path}/try", json={"image": bad})
            assert refused.status_code == 400
            assert says in refused.json()["detail"], refused.json()
        words = await http.post(f"{path}/layers/{CONV}/units/{unit}/try", json={"words": "a door"})
        assert words.status_code == 200, words.text
        assert len(words.json()["drawings"]) == 3
