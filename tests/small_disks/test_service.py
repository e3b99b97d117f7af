"""A real stage service, as a process, whose artifact folder lies on a disk that is full."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from processes import run_service
from small_disks.conftest import Disk
from tiny.networks import save_vit
from unit.activations.conftest import write_pictures

from dnd.artifacts import ArtifactStore
from dnd.clients import SERVICE_NAMES, Services
from dnd.errors import StorageFull
from dnd.profiles import IndexSettings


def test_service_says_that_its_disk_is_full_and_goes_on_when_there_is_room(
    tmp_path: Path, make_disk: Callable[[str, int], Disk]
) -> None:
    disk = make_disk("artifacts", 16)
    models, probes = tmp_path / "models.yaml", tmp_path / "probes.yaml"
    models.write_text(f'models: {{vit: {{spec: "hf:{save_vit(tmp_path / "vit")}"}}}}')
    write_pictures(tmp_path / "pictures", range(20))
    probes.write_text('probes: {few: "imagefolder:pictures"}')
    with run_service(
        "activations", tmp_path, models=models, probes=probes, max_batch=4, threads=1
    ) as service:
        store = ArtifactStore(disk.folder)
        targets = dict.fromkeys(SERVICE_NAMES, service.address)
        services = Services.connect(targets, store, deadline_s=60.0)
        client = services.activations
        probe_set = client.get_probe_set("few", 0.2)

        def index() -> str:
            return client.index_shard(
                "vit", ("classifier",), probe_set.manifest_ref, 0, 20, IndexSettings(), ""
            )

        disk.fill()
        for _ in range(2):
            with pytest.raises(StorageFull, match="is full: free some space"):
                index()
        service.check_watchable("dnd.v1.ActivationsService")
        disk.free()
        assert index() in store
        services.close()
        status, log = service.stop()
        assert status == 0, log
        assert "Traceback" not in log
