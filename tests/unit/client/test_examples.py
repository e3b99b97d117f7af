"""What README and examples/ show, run against a coordinator."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_coordinator import FakeCoordinator, serve_fake
from result_samples import make_sample

ROOT = Path(__file__).parents[3]


@pytest.fixture
def fake() -> FakeCoordinator:
    fake = FakeCoordinator(make_sample(5))
    assert fake.on_create is not None
    fake.samples["job-1"] = fake.on_create
    return fake


@pytest.fixture
def server(fake: FakeCoordinator) -> Iterator[str]:
    with serve_fake(fake) as address:
        yield address


def test_quickstart_of_the_readme_runs(
    server: str, fake: FakeCoordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## From Python")[2]
    (code, *_) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(code.strip().splitlines()) <= 10
    exec(compile(code.replace("127.0.0.1:7000", server), "README.md", "exec"), {})
    assert "CreateJob" in fake.calls
    shown = capsys.readouterr().out
    for unit in fake.samples["job-1"].units:
        assert f"{unit.layer} {unit.unit} {unit.labels}" in shown


def test_cells_of_the_notebook_run_in_order(
    server: str,
    fake: FakeCoordinator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    notebook = json.loads((ROOT / "examples" / "labels.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    monkeypatch.setenv("DND_SERVER", server)
    names: dict[str, Any] = {}
    for number, cell in enumerate(cells):
        exec(compile(cell, f"cell {number}", "exec"), names)
    assert "job-1" in capsys.readouterr().out
    assert list(names["frame"]["unit"]) == [0, 1, 2, 3, 4]
    assert {"ExportLabels", "SearchLabels", "GetImages"} <= set(fake.calls)
    assert not any(cell.get("outputs") for cell in notebook["cells"])
