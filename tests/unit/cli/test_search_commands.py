"""dnd search, diff, tokens, and export in one format."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest
from fake_coordinator import FakeCoordinator
from result_samples import make_sample
from unit.cli.conftest import Command

from dnd.jobs import UnitState


@pytest.fixture
def other(fake: FakeCoordinator) -> str:
    """A second job: unit 1 has another label, unit 2 none, and there is no unit 0."""
    sample = make_sample(4)
    units = list(sample.units)[1:]
    units[0] = replace(units[0], labels=("another label",))
    units[1] = replace(units[1], labels=(), state=UnitState.FAILED)
    sample.job = replace(sample.job, id="job-2")
    sample.units = units
    fake.samples["job-2"] = sample
    return "job-2"


def test_search_lists_units_by_words_and_by_meaning(
    dnd: Command, fake: FakeCoordinator, server: str
) -> None:
    label = next(one for sample in fake.samples.values() for one in sample.units).labels[0]
    outcome = dnd("search", label, "--server", server)
    assert label in outcome.out
    assert "Cosine" not in outcome.out
    outcome = dnd("search", label, "--meaning", "--job", "job-1", "--server", server)
    assert "0.5" in outcome.out
    assert fake.last_search is not None
    assert fake.last_search.job_id == "job-1"
    assert dnd("search", "nowhere", "--server", server).out == "No label fits.\n"


def test_diff_shows_units_with_other_labels(dnd: Command, server: str, other: str) -> None:
    outcome = dnd("diff", "job-1", other, "--server", server, "--json")
    changed = [json.loads(line) for line in outcome.out.splitlines()]
    assert [(one["unit"], one["same"]) for one in changed] == [(1, False), (2, False)]
    assert changed[0]["after"]["labels"] == ["another label"]
    assert changed[1]["after"]["state"] == "failed"
    table = dnd("diff", "job-1", other, "--server", server)
    assert "another label" in table.out
    assert "2 of the 3 units of both jobs have other labels" in table.out
    assert "2 units are only in job-1, 0 only in job-2" in table.out
    everything = dnd("diff", "job-1", other, "--all", "--json", "--server", server)
    assert len(everything.out.splitlines()) == 3


def test_tokens_are_made_listed_and_revoked(
    dnd: Command, fake: FakeCoordinator, server: str
) -> None:
    assert dnd("tokens", "list", "--server", server).out == "There are no tokens yet.\n"
    made = dnd("tokens", "create", "ci", "--tenant", "team-a", "--role", "read", "--server", server)
    assert made.out == "dnd_secret\n"
    assert "tenant team-a, role read" in made.err
    listed = dnd("tokens", "list", "--server", server).out
    assert "team-a" in listed
    assert "dnd_secret" not in listed
    assert "is revoked" in dnd("tokens", "revoke", "t0", "--server", server).out
    assert dnd("tokens", "revoke", "t9", "--server", server).status == 1


def test_token_comes_from_the_environment(
    dnd: Command,
    fake: FakeCoordinator,
    server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DND_TOKEN", "dnd_one")
    dnd("jobs", "--server", server)
    file = tmp_path / "token"
    file.write_text("dnd_two\n")
    monkeypatch.setenv("DND_TOKEN_FILE", str(file))
    dnd("jobs", "--server", server)
    assert fake.sent == ["Bearer dnd_one", "Bearer dnd_two"]
    monkeypatch.setenv("DND_TOKEN_FILE", str(tmp_path / "none"))
    assert "DND_TOKEN_FILE" in dnd("jobs", "--server", server).err


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_export_writes_one_file_in_one_format(
    dnd: Command, fake: FakeCoordinator, server: str, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "out"
    outcome = dnd("export", "--format", kind, "--out", out, "--server", server)
    assert outcome.out.strip().endswith(f"labels.{kind}")
    assert [path.name for path in out.iterdir()] == [f"labels.{kind}"]
    path = out / f"labels.{kind}"
    units = [unit.unit for unit in fake.samples["job-1"].units]
    if kind == "jsonl":
        found = [json.loads(line)["unit"] for line in path.read_text().splitlines()]
    elif kind == "csv":
        found = [int(row["unit"]) for row in csv.DictReader(path.open())]
    else:
        table = pyarrow.parquet.read_table(path)
        found = table["unit"].to_pylist()
        assert str(table.schema.field("percentile").type) == "double"
    assert found == units
    assert fake.calls.count("ExportLabels") == 1
