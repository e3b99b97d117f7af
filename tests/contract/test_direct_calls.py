"""The examples of docs/stages.md, run against the fakes and against the services themselves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract.worlds import World, draw

from dnd.images import decode_image

ROOT = Path(__file__).parents[2]


def test_examples_of_direct_calls_run(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "stages.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 3
    names: dict[str, Any] = {
        "CAPTIONER": world.targets["captioner"],
        "TARGETS": world.targets,
        "ARTIFACTS": world.artifacts.root,
        "MODEL": "tiny",
        "LAYER": world.layer,
        "picture": draw(1),
    }
    for example in examples:
        exec(compile(example, "docs/stages.md", "exec"), names)
    assert names["bad"].error.reason == "BadImage"
    assert names["good"].text in capsys.readouterr().out
    assert names["proposal"].candidates
    first, second = map(decode_image, names["pngs"])
    assert first.size == second.size
    assert first.tobytes() != second.tobytes()
    for vector in (*names["texts"], *names["images"]):
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-3)
    assert names["values"].shape[0] == 1
