"""The results folder, fetched from a coordinator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_coordinator import FakeCoordinator, serve_fake
from result_samples import make_sample

from dnd.client import Client
from dnd.errors import DndError, FailedPrecondition, NotFound, StorageFull
from dnd.report import results, write_results


@pytest.fixture
def fake() -> FakeCoordinator:
    fake = FakeCoordinator()
    fake.samples["job-1"] = make_sample(3)
    return fake


@pytest.fixture
def client(fake: FakeCoordinator) -> Iterator[Client]:
    with serve_fake(fake) as address, Client(address, retry_s=0) as client:
        yield client


def test_writes_three_files_when_a_job_is_exported(client: Client, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "results"
    written = write_results(client, client.get_job(), out)
    names = sorted(path.name for path in out.iterdir())
    assert names == ["labels.csv", "labels.jsonl", "report.html"]
    assert written.report == out / "report.html"
    assert "thing 0" in written.report.read_text()


def test_does_without_class_names_when_the_layers_cannot_be_listed(
    client: Client, fake: FakeCoordinator, tmp_path: Path
) -> None:
    fake.failures = [("ListTargetLayers", NotFound("gone"))]
    written = write_results(client, client.get_job(), tmp_path)
    assert written.labels.lines[0].true_class == ""


def test_says_how_to_try_again_when_the_disk_is_full(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "NEEDED_BYTES", 2**62)
    with pytest.raises(StorageFull, match="dnd export job-1 --out"):
        write_results(client, client.get_job(), tmp_path)


def test_names_the_folder_when_it_cannot_be_written_to(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedPrecondition, match=r"cannot be written to .*file/out"):
        write_results(client, client.get_job(), tmp_path / "file" / "out")


def test_passes_the_servers_error_on_when_it_goes_away(
    client: Client, fake: FakeCoordinator, tmp_path: Path
) -> None:
    job = client.get_job()
    fake.failures = [("ExportLabels", DndError("broken"))]
    with pytest.raises(DndError, match="broken"):
        write_results(client, job, tmp_path)
    assert not (tmp_path / "labels.jsonl").exists()
