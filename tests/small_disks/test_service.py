"""A real stage service, as a process, whose artifact folder lies on a disk that is full."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from small_disks.conftest import Disk
from unit.activations.conftest import run_activations

from dnd.artifacts import ArtifactStore
from dnd.clients import SERVICE_NAMES, Services
from dnd.errors import StorageFull
from dnd.profiles import IndexSettings


def test_service_says_that_its_disk_is_full_and_goes_on_when_there_is_room(
    tmp_path: Path, make_disk: Callable[[str, int], Disk]
) -> None:
    disk = make_disk("artifacts", 16)
    with run_activations(tmp_path) as service:
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
