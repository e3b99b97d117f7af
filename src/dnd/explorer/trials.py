"""What came of a trial, as pages show it; and a page of it that needs no server."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from dnd.explorer.site import render_alone
from dnd.report.scale import Scale
from dnd.trials import ExcitedUnit, MeasuredImage, TriedWords


@dataclass(frozen=True)
class ExcitedCard:
    """A unit that a picture excites.

    Attributes:
        activation: As text.
        exemplars: The range of activations of its exemplars, as text; empty for none.
        picture: Data URI of the picture with its map.
    """

    layer: str
    unit: int
    label: str
    share: float
    activation: str
    exemplars: str
    picture: str


@dataclass(frozen=True)
class Shown:
    """A drawing or an exemplar with the unit's activation; `fraction` is 0 to 1."""

    picture: str
    activation: str
    fraction: float


@dataclass(frozen=True)
class WordsView:
    """Drawings of words beside a unit's exemplars, both most activating first."""

    words: str
    drawings: tuple[Shown, ...]
    exemplars: tuple[Shown, ...]
    num_above: int


def view_excited(units: Sequence[ExcitedUnit]) -> list[ExcitedCard]:
    """Units that a picture excites, for a template."""
    return [
        ExcitedCard(
            one.layer,
            one.unit,
            one.label,
            one.share,
            *_activations(one),
            _uri(one.map),
        )
        for one in units
    ]


def _activations(one: ExcitedUnit) -> tuple[str, str]:
    if one.weakest_exemplar is None or one.strongest_exemplar is None:
        return Scale.of([one.activation]).text(one.activation), ""
    low, high = one.weakest_exemplar, one.strongest_exemplar
    scale = Scale.of([one.activation, low, high])
    return scale.text(one.activation), f"{scale.text(low)} to {scale.text(high)}"


def view_words(tried: TriedWords) -> WordsView:
    """Drawings of words beside a unit's exemplars, for a template."""
    both = (*tried.drawings, *tried.exemplars)
    scale = Scale.of([one.activation for one in both])
    return WordsView(
        tried.words,
        _shown(tried.drawings, scale),
        _shown(tried.exemplars, scale),
        tried.num_above,
    )


def _shown(images: Sequence[MeasuredImage], scale: Scale) -> tuple[Shown, ...]:
    return tuple(
        Shown(_uri(one.image), scale.text(one.activation), scale.fraction(one.activation))
        for one in images
    )


def _uri(data: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(data).decode()


def picture_page(name: str, model: str, units: Sequence[ExcitedUnit]) -> str:
    """A page of the units that the picture `name` excites."""
    return render_alone("try_picture.html.j2", name, model, found=view_excited(units))


def words_page(layer: str, unit: int, model: str, tried: TriedWords) -> str:
    """A page of drawings of words beside a unit's exemplars."""
    title = f"{layer} {unit}: “{tried.words}”"
    return render_alone("try_words.html.j2", title, model, answer=view_words(tried))
