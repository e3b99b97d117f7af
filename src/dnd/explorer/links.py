"""Where the pages of the explorer lie, and what a page of units shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import quote, urlencode

from dnd.errors import InvalidInput
from dnd.jobs import UnitState

SORTS = {
    "unit": "unit number",
    "percentile": "percentile, highest first",
    "lowest": "percentile, lowest first",
    "auc": "AUC, highest first",
    "label": "label, A to Z",
}
MAX_WORDS = 200
UNITS_ON_A_PAGE = 96
MAX_FAILURES = 20
"""Failed units that the page of a job lists."""
NUM_BINS = 20
"""Of percentiles, from 0 to 1."""


@dataclass(frozen=True)
class UnitQuery:
    """Which units of a job a page shows, and in what order.

    Attributes:
        layer: Only this layer; empty for all.
        state: Only this state; None for all.
        words: All of them must occur in the labels; empty for any.
        low: Lowest percentile, 0 to 1; 0 takes units without a percentile too.
        high: Percentiles below this, or 1 for all.
        sort: A key of `SORTS`.
        page: From 1.
    """

    layer: str = ""
    state: UnitState | None = None
    words: str = ""
    low: float = 0.0
    high: float = 1.0
    sort: str = "unit"
    page: int = 1

    @property
    def limits_percentile(self) -> bool:
        """Whether only units with a percentile are shown."""
        return self.low > 0 or self.high < 1

    @property
    def limits(self) -> bool:
        """Whether it shows fewer units than the layer has."""
        return bool(self.state or self.words) or self.limits_percentile

    def encode(self) -> str:
        """As the query of an address; what is as by default is left out."""
        values = {
            "layer": self.layer,
            "state": self.state.value if self.state else "",
            "q": self.words,
            "low": f"{self.low:g}" if self.low > 0 else "",
            "high": f"{self.high:g}" if self.high < 1 else "",
            "sort": self.sort if self.sort != "unit" else "",
            "page": str(self.page) if self.page > 1 else "",
        }
        return urlencode({name: value for name, value in values.items() if value})

    def with_(self, **changes: object) -> UnitQuery:
        """The first page of a changed query, or the page that is named."""
        return replace(self, **{"page": 1, **changes})  # type: ignore[arg-type]


def read_query(values: Mapping[str, str]) -> UnitQuery:
    """The query in the parameters of an address.

    Raises:
        InvalidInput: A value is none of those that there are.
    """
    state = values.get("state", "")
    if state and state not in [one.value for one in UnitState]:
        states = ", ".join(one.value for one in UnitState)
        raise InvalidInput(f"state = {state[:40]!r}: expected one of {states}.")
    sort = values.get("sort") or "unit"
    if sort not in SORTS:
        raise InvalidInput(f"sort = {sort[:40]!r}: expected one of {', '.join(SORTS)}.")
    words = " ".join(values.get("q", "").split())
    if len(words) > MAX_WORDS:
        raise InvalidInput(f"q has {len(words)} characters: expected at most {MAX_WORDS}.")
    return UnitQuery(
        layer=values.get("layer", ""),
        state=UnitState(state) if state else None,
        words=words,
        low=_read_number(values, "low", 0.0, 1.0),
        high=_read_number(values, "high", 1.0, 1.0),
        sort=sort,
        page=int(_read_number(values, "page", 1, 1e7, least=1)),
    )


def _read_number(
    values: Mapping[str, str], name: str, default: float, most: float, least: float = 0.0
) -> float:
    text = values.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise InvalidInput(f"{name} = {text[:40]!r}: expected a number from {least:g} to {most:g}.")
    return value


class Links(Protocol):
    """Addresses of pages, pictures and assets, for templates.

    Attributes:
        on_server: Whether there is a server, which can search, filter and compare.
    """

    on_server: bool

    def asset(self, name: str) -> str:
        """A style sheet or script."""

    def units(self, job: str, query: UnitQuery) -> str:
        """A page of units."""

    def unit(self, job: str, layer: str, unit: int, query: UnitQuery | None = None) -> str:
        """A unit; among the units of `query`, its neighbours are those of that list."""

    def image(self, job: str, layer: str, unit: int, ref: str, side: int) -> str:
        """An image of a unit's record, at most `side` pixels on its longer side."""

    def mosaic(self, job: str, layer: str, unit: int, version: str) -> str:
        """Four exemplars of a unit in a square; `version` changes when they do."""


class ServerLinks:
    """Addresses on a server.

    Args:
        root: Path under which the pages lie, without a slash at its end.
        assets: Digests of the assets, so that browsers may keep them for ever.
    """

    on_server = True

    def __init__(self, root: str, assets: Mapping[str, str]) -> None:
        self.root = root
        self._assets = assets

    def asset(self, name: str) -> str:
        return f"{self.root}/static/{name}?v={self._assets[name]}"

    def jobs(self) -> str:
        return f"{self.root}/jobs"

    def login(self) -> str:
        return f"{self.root}/login"

    def job(self, job: str) -> str:
        return f"{self.root}/jobs/{quote(job, safe='')}"

    def units(self, job: str, query: UnitQuery) -> str:
        encoded = query.encode()
        return f"{self.job(job)}/units{'?' if encoded else ''}{encoded}"

    def unit(self, job: str, layer: str, unit: int, query: UnitQuery | None = None) -> str:
        encoded = query.encode() if query else ""
        address = f"{self.job(job)}/units/{quote(layer)}/{unit}"
        return f"{address}?in={quote(encoded, safe='')}" if encoded else address

    def image(self, job: str, layer: str, unit: int, ref: str, side: int) -> str:
        return f"{self.unit(job, layer, unit)}/images/{quote(ref, safe=':')}?side={side}"

    def mosaic(self, job: str, layer: str, unit: int, version: str) -> str:
        return f"{self.unit(job, layer, unit)}/mosaic?v={version}"

    def search(self, words: str = "") -> str:
        return f"{self.root}/search" + (f"?q={quote(words)}" if words else "")

    def compare(self, first: str = "", second: str = "", **values: str) -> str:
        pairs = {"a": first, "b": second, **values}
        encoded = urlencode({name: value for name, value in pairs.items() if value})
        return f"{self.root}/compare{'?' if encoded else ''}{encoded}"

    def try_it(self, job: str) -> str:
        return f"{self.job(job)}/try"
