"""The scorer as an operator runs it: a process that serves, is watched, and drains."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from processes import exit_of, run_service

from dnd.artifacts import ArtifactStore
from dnd.clients import EndpointPool, ScorerClient
from dnd.images import encode_png
from dnd.profiles import PAPER
from dnd.serving.metrics import read_counts
from dnd.types import Ranking, ScoreCandidate, ScoreUnit


def test_process_with_the_starter_packs_model_serves_is_watched_and_drains(tmp_path: Path) -> None:
    with run_service(
        "scorer", tmp_path, model="pack:starter/scorer", max_batch=8, fixed_batch=True, threads=1
    ) as service:
        service.check_watchable("dnd.v1.ScorerService")
        store = ArtifactStore(service.artifacts)
        colours = ("red", "maroon", "blue", "navy")
        refs = [store.put_bytes(encode_png(Image.new("RGB", (64, 64), c))) for c in colours]
        client = ScorerClient(EndpointPool("scorer", service.address))
        assert client.get_model().architecture == "CLIPModel"
        unit = ScoreUnit(
            tuple(refs[:1]),
            (
                ScoreCandidate("a blue circle", tuple(refs[2:]), (1.0, 2.0)),
                ScoreCandidate("a red circle", tuple(refs[:2]), (3.0, 4.0)),
            ),
        )
        (ranking,) = client.score_concepts([unit], PAPER.score)
        assert isinstance(ranking, Ranking)
        assert [score.candidate for score in ranking.scores] == [1, 0]
        texts = client.embed_texts(["a red circle"])
        images = client.embed_images(refs[:1])
        assert len(texts[0]) == len(images[0]) > 0  # type: ignore[arg-type]
        counts = read_counts(service.metrics)
        assert counts.num_rpcs == 4
        # Exemplars are embedded as they are, drawings shrunk: 1 + 4 pictures, and 2 texts.
        assert (counts.num_items, counts.num_cached) == (7, 2)
        status, log = service.stop()
        assert status == 0, log


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "/no/such/model"}, "no weights at '/no/such/model'"),
        ({"model": "pack:starter/nothing"}, "no weights at 'pack:starter/nothing'"),
        ({"model": "x", "cache_mb": -1}, "DND_CACHE_MB = -1"),
    ],
)
def test_process_ends_with_a_sentence_when_a_setting_is_bad(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    status, log = exit_of("scorer", **{"artifacts": tmp_path} | settings)
    assert status == 2
    assert message in log
    assert "Traceback" not in log
