"""From options and a job file to a specification."""

from __future__ import annotations

from pathlib import Path

import pytest

from dnd.cli.specs import make_absolute, make_spec, parse_units
from dnd.errors import BadSetting, DndError, InvalidInput, UnknownName
from dnd.jobs import JobSpec, LayerUnits
from dnd.types import Priority


def spec_of(file: Path | None = None, **given: object) -> JobSpec:
    """The specification of a complete command line, but for what is `given`."""
    options: dict[str, object] = {
        "model": "net",
        "layers": ("head",),
        "units": "",
        "probe": "set",
        "profile": "",
        "settings": (),
        "seed": None,
    }
    return make_spec(**{**options, **given}, spec_file=file)  # type: ignore[arg-type]


def empty(file: Path) -> JobSpec:
    """The specification of a file alone."""
    return spec_of(file, model="", layers=(), probe="")


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("", ()),
        ("7", (7,)),
        ("0-3,40", (0, 1, 2, 3, 40)),
        (" 5 - 6 , 2,2, ", (2, 5, 6)),
        (40, (40,)),
        ([3, "0-1"], (0, 1, 3)),
    ],
)
def test_reads_numbers_and_ranges_as_units(text: object, units: tuple[int, ...]) -> None:
    assert parse_units(text) == units


@pytest.mark.parametrize("text", ["a", "3-1", "-1", "1-", "1.5", "0:15", "٣", "1-2-3"])
def test_names_the_part_when_it_is_no_unit(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"expected numbers and ranges, for example 0-15,40"):
        parse_units(f"0,{text}")


def test_refuses_a_range_that_no_layer_can_have() -> None:
    with pytest.raises(InvalidInput, match="at most 10000000 units"):
        parse_units("0-99999999999")


@pytest.mark.parametrize(
    ("missing", "advice"),
    [("model", "add MODEL"), ("layers", "dnd layers"), ("probe", "add --probe NAME")],
)
def test_says_what_to_add_when_something_is_missing(missing: str, advice: str) -> None:
    with pytest.raises(InvalidInput, match=advice):
        spec_of(**{missing: () if missing == "layers" else ""})


def test_reads_a_whole_job_when_it_is_given_as_a_file(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "model: net\nprobe: set\nprofile: starter\nunits: 0-1\nseed: 3\npriority: interactive\n"
        "layers: [features.3, {layer: head, units: '4,7'}]\n"
        "settings: {synthesis: {num_steps: 8}, score.function: mean_of_ranks}\n"
    )
    assert empty(file) == JobSpec(
        "net",
        (LayerUnits("features.3", (0, 1)), LayerUnits("head", (4, 7))),
        "set",
        "starter",
        {"synthesis.num_steps": "8", "score.function": '"mean_of_ranks"'},
        3,
        Priority.INTERACTIVE,
    )


def test_lets_options_go_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "model: net\nprobe: set\nlayers: [{layer: a, units: '1'}]\nseed: 3\n"
        "settings: {synthesis.num_steps: 8}\n"
    )
    spec = make_spec("other", (), "5", "", "", ("synthesis.num_steps=9",), 4, file)
    assert (spec.model, spec.probe, spec.seed) == ("other", "set", 4)
    assert spec.layers == (LayerUnits("a", (5,)),)
    assert spec.overrides == {"synthesis.num_steps": "9"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: net", r"There is no key 'modle'. Did you mean 'model'"),
        ("layers: [{layer: a, unit: 3}]", "no key 'unit'. Did you mean 'units'"),
        ("settings: {synthesis: {steps: 3}}", "synthesis.steps"),
        ("settings: [3]", "settings: expected names like synthesis.num_steps"),
        ("layers: head", "expected a list of module paths"),
        ("units: some", "expected numbers and ranges"),
        ("seed: -1", "seed = -1: expected a number from 0"),
        ("seed: true", "seed = True: expected a number"),
        ("priority: high", "priority = 'high': expected interactive or batch"),
        ("profile: papr", "Did you mean 'paper'"),
        ("", "expected keys with values"),
        ("- a", "expected keys with values"),
        ("a: [", "is no YAML"),
    ],
)
def test_names_what_is_wrong_in_a_file(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text if ":" not in text or "layers" in text else f"{text}\nlayers: [a]\n")
    with pytest.raises(DndError, match=message) as caught:
        spec_of(file, layers=())
    assert isinstance(caught.value, (BadSetting, InvalidInput, UnknownName))


def test_names_the_file_when_it_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match=r"job.yaml cannot be read: No such file"):
        spec_of(tmp_path / "job.yaml")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("num_steps", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("synthesis.num_step=3", "Did you mean 'synthesis.num_steps'"),
        ("synthesis.num_steps=many", "synthesis.num_steps"),
        ("synthesis.num_steps=-3", "synthesis.num_steps"),
    ],
)
def test_names_the_setting_when_it_does_not_fit(setting: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        spec_of(settings=(setting,))


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_refuses_a_seed_that_does_not_fit(seed: int) -> None:
    with pytest.raises(BadSetting, match="--seed = "):
        spec_of(seed=seed)


def test_writes_folders_out_in_full_for_a_stack_that_works_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "net.pt2").write_text("")
    monkeypatch.chdir(tmp_path)
    pictures = f"imagefolder:{tmp_path / 'pictures'}"
    spec = make_absolute(JobSpec("export:net.pt2", (), "pictures+openmoji+imagefolder:pictures"))
    assert spec.model == f"export:{tmp_path / 'net.pt2'}"
    assert spec.probe == f"{pictures}+openmoji+{pictures}"
    shards = make_absolute(JobSpec("m", (), "webdataset:s/{0..9}.tar+webdataset:s3://b/s/*.tar"))
    assert shards.probe == f"webdataset:{tmp_path}/s/{{0..9}}.tar+webdataset:s3://b/s/*.tar"
    assert make_absolute(JobSpec("hf:a/b", (), "names")) == JobSpec("hf:a/b", (), "names")
