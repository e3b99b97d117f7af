"""Pages of the explorer over a layer of 10,000 units: how long the server takes for each.

    python -m benchmarks.explorer [number of units]

Writes a record (SQLite) with one ended job, all of whose units have made-up labels, percentiles and
AUCs, and asks the application for each kind of list, without a socket and without a browser.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx2
from rich.console import Console
from rich.table import Table
from sqlalchemy import insert

from dnd.artifacts import ArtifactStore
from dnd.clients import SERVICE_NAMES, Services
from dnd.explorer.links import UNITS_ON_A_PAGE
from dnd.profiles import get_profile
from dnd.serving import Metrics
from dnd.types import ProbeSet
from dnd_services.coordinator import frozen
from dnd_services.coordinator.access import Gate
from dnd_services.coordinator.budgets import Budgets
from dnd_services.coordinator.migrate import migrate
from dnd_services.coordinator.models import CounterRow, JobLayerRow, JobRow, UnitRow
from dnd_services.coordinator.servicer import CoordinatorServicer
from dnd_services.coordinator.settings import CoordinatorSettings
from dnd_services.coordinator.store import Store
from dnd_services.coordinator.web.app import create_app

NUM_UNITS = 10_000
REPEATS = 5
WORDS = ("red", "dog", "wheel", "striped", "sky", "metal", "round", "leaf", "water", "face")
PAGES = {
    "job": "/jobs/j",
    "first page": "/jobs/j/units?layer=layer4",
    "last page": "/jobs/j/units?layer=layer4&page=LAST",
    "by percentile": "/jobs/j/units?layer=layer4&sort=percentile",
    "by label, page 50": "/jobs/j/units?layer=layer4&sort=label&page=50",
    "two words": "/jobs/j/units?layer=layer4&q=red+dog",
    "search in all jobs": "/search?q=striped+wheel",
    "compared with itself": "/compare?a=j&b=j&show=same",
}


def fill(store: Store, num_units: int) -> None:
    """Writes a job with one layer, all of whose units are labelled."""
    rng = random.Random(0)
    made = frozen.freeze(
        model="net",
        layers=["layer4"],
        probe="probe",
        probe_set=ProbeSet("sha256:" + "0" * 64, 50_000, 45_000, 0),
        profile=get_profile("default"),
        seed=0,
        digests={},
    )
    units = [
        {
            "job_id": "j",
            "ordinal": unit,
            "place": 0,
            "unit": unit,
            "state": "labeled",
            "labels": [" ".join(rng.sample(WORDS, 2)), rng.choice(WORDS)],
            "outputs": {"exemplars": f"sha256:{unit:064x}"},
            "percentile": rng.random(),
            "auc": rng.random(),
        }
        for unit in range(num_units)
    ]
    ranges = [[0, num_units]]
    layer = {"job_id": "j", "place": 0, "layer": "layer4", "ranges": ranges, "first_ordinal": 0}
    job = {
        "id": "j",
        "tenant": "default",
        "request_id": "r",
        "body_hash": "",
        "spec": b"",
        "frozen": made,
        "profile": "default",
        "is_batch": True,
        "state": "completed",
        "num_shards": 1,
        "next_ordinal": num_units,
        "num_ended": num_units,
        "created_at": 1.0,
        "ended_at": 2.0,
    }
    with store.writing() as session:
        session.execute(insert(JobRow), [job | {"num_units": num_units, "num_live": num_units}])
        session.execute(insert(JobLayerRow), [layer | {"num_units": num_units}])
        session.execute(insert(UnitRow), units)
        counter = {"job_id": "j", "name": "unit", "state": "labeled", "num": num_units}
        session.execute(insert(CounterRow), [counter])


async def measure(store: Store, folder: Path, num_units: int) -> None:
    """Asks for each page and prints how long it took."""
    nowhere = dict.fromkeys(SERVICE_NAMES, "127.0.0.1:1")
    services = Services.connect(nowhere, ArtifactStore(folder / "artifacts"))
    settings = CoordinatorSettings(
        artifacts=str(folder / "artifacts"),
        database=store.url,
        redis="redis://127.0.0.1:1/0",
        **nowhere,
    )
    servicer = CoordinatorServicer(store, services, settings, lambda: None, Budgets())
    table = Table("Page", "Median, ms", "Slowest, ms", "Size, kB", title=f"{num_units:,} units")
    transport = httpx2.ASGITransport(create_app(servicer, Gate(store, settings), Metrics()))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        for name, path in PAGES.items():
            path = path.replace("LAST", str(-(-num_units // UNITS_ON_A_PAGE)))
            times = []
            for _ in range(REPEATS):
                before = time.perf_counter()
                answer = (await http.get(path)).raise_for_status()
                times.append(1000 * (time.perf_counter() - before))
            size = f"{len(answer.content) / 1000:.0f}"
            table.add_row(name, f"{statistics.median(times):.0f}", f"{max(times):.0f}", size)
    Console(width=100).print(table)
    servicer.close()
    services.close()


def main() -> None:
    num_units = int(sys.argv[1]) if len(sys.argv) > 1 else NUM_UNITS
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{folder}/record.db")
        migrate(store)
        fill(store, num_units)
        asyncio.run(measure(store, Path(folder), num_units))
        store.close()


if __name__ == "__main__":
    main()
