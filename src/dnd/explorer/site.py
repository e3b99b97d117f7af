"""Templates and assets of the explorer. All text is escaped: labels and captions are untrusted."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from dnd.explorer.links import SORTS, Links
from dnd.jobs import UnitState
from dnd.report.components import COMPONENTS
from dnd.report.overview import STATE_MEANINGS
from dnd.report.scale import format_bytes, format_duration, short

ASSETS = {
    "report.css": ("dnd.report", "templates", "text/css; charset=utf-8"),
    "explorer.css": ("dnd.explorer", "static", "text/css; charset=utf-8"),
    "explorer.js": ("dnd.explorer", "static", "text/javascript; charset=utf-8"),
    "icon.svg": ("dnd.explorer", "static", "image/svg+xml"),
}
"""Name to package, folder and content type."""


@cache
def read_asset(name: str) -> bytes:
    """A file that pages load; KeyError for any other name."""
    package, folder, _ = ASSETS[name]
    return (files(package) / folder / name).read_bytes()


@cache
def asset_digests() -> dict[str, str]:
    """Part of the digest of each asset's bytes."""
    return {name: hashlib.sha256(read_asset(name)).hexdigest()[:12] for name in ASSETS}


def render(template: str, links: Links, **values: Any) -> str:
    """A page as HTML."""
    return _environment().get_template(template).render(links=links, **values)


def render_alone(part: str, title: str, model: str, **values: Any) -> str:
    """A part of a page as a page by itself, which needs no server and runs nothing."""
    style = "\n".join(read_asset(name).decode() for name in ("report.css", "explorer.css"))
    template = _environment().get_template("trial.html.j2")
    return template.render(
        part=part, title=title, model=model, style=Markup(style), links=None, **values
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [
                jinja2.PackageLoader("dnd.explorer"),
                jinja2.PrefixLoader({"report": jinja2.PackageLoader("dnd.report")}),
            ]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "short": short,
        "duration": format_duration,
        "bytes": format_bytes,
        "moment": format_moment,
        "count": lambda number: f"{number:,}",
        "pretty": lambda text: json.dumps(json.loads(text or "{}"), indent=2, ensure_ascii=False),
    }
    environment.globals |= {
        "STATES": [one.value for one in UnitState],
        "STATE_MEANINGS": STATE_MEANINGS,
        "SORTS": SORTS,
        "COMPONENTS": COMPONENTS,
    }
    return environment


def format_moment(seconds: float) -> str:
    """Seconds since 1970 as "2026-11-21 18:45" in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
