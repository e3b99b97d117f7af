"""dnd try."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import click

from dnd.cli.connect import connected
from dnd.cli.console import print_table, say
from dnd.cli.options import server_option
from dnd.errors import FailedPrecondition, InvalidInput
from dnd.explorer.trials import picture_page, view_excited, view_words, words_page
from dnd.images import MAX_BYTES
from dnd.jobs import Job
from dnd.trials import ExcitedUnit, TriedWords


@click.command("try")
@click.argument(
    "picture", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@server_option
@click.option("--job", metavar="JOB", default="", help="Job to try.  [default: the newest]")
@click.option("--words", metavar="WORDS", default="", help="Draw these words for --unit.")
@click.option("--unit", type=click.IntRange(0), metavar="NUMBER", help="Unit to draw words for.")
@click.option(
    "--layer", metavar="PATH", default="", help="Layer of the unit.  [default: the job's only one]"
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("try.html"),
    show_default=True,
    help="Page to write the pictures to.",
)
def try_(
    picture: Path | None,
    server: str,
    home: Path,
    job: str,
    words: str,
    unit: int | None,
    layer: str,
    out: Path,
) -> None:
    """Try a PICTURE, or words for a unit, on the labelled units of a job.

    A picture: the units that it excites more than 95 % of the probe images, most unusual first,
    with the range of their exemplars. --words: drawings of the words, with their activations beside
    those of the unit's exemplars.
    """
    if (picture is None) == (not words):
        raise click.UsageError("Name a picture, or words with --words and --unit.")
    if bool(words) != (unit is not None):
        raise click.UsageError("--words and --unit go together.")
    if layer and not words:
        raise click.UsageError("--layer is of the unit that --words are drawn for.")
    with connected(server, home) as session:
        found = session.client.get_job(job)
        if picture is not None:
            units = session.client.try_image(_read(picture), found.id)
            page = picture_page(picture.name, found.spec.model, units)
        else:
            assert unit is not None
            place = layer or _only_layer(found)
            tried = session.client.try_words(words, place, unit, found.id)
            page = words_page(place, unit, found.spec.model, tried)
    if picture is not None:
        _print_units(units)
    else:
        _print_words(tried)
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise FailedPrecondition(f"--out {out}: it cannot be written: {error.strerror}.") from None
    say(f"{out}")


def _read(picture: Path) -> bytes:
    if picture.stat().st_size > MAX_BYTES:
        raise InvalidInput(f"{picture} has more than {MAX_BYTES >> 20} MiB: send a smaller one.")
    return picture.read_bytes()


def _only_layer(job: Job) -> str:
    layers = [one.layer for one in job.spec.layers]
    if len(layers) > 1:
        raise InvalidInput(
            f"Job {job.id} has {len(layers)} layers: name one with --layer: {', '.join(layers)}."
        )
    return layers[0]


def _print_units(units: Sequence[ExcitedUnit]) -> None:
    if not units:
        say("No labelled unit responds to it more than to 95 % of the probe images.")
        return
    rows = [
        (
            *(card.layer, card.unit, card.label, f"{100 * card.share:.1f} %"),
            *(card.activation, card.exemplars or None),
            None if one.exemplar_level is None else f"{100 * one.exemplar_level:.0f} %",
        )
        for one, card in zip(units, view_excited(units), strict=True)
    ]
    headers = ("Layer", "Unit", "Label", "Above", "Activation", "Its exemplars", "Of them")
    print_table(headers, rows, right=("Unit", "Above", "Activation", "Its exemplars", "Of them"))
    say("Above: of the probe images. Of them: 0 % is the probe images' mean, 100 % its exemplars'.")


def _print_words(tried: TriedWords) -> None:
    view = view_words(tried)
    rows = [
        (rank, *(one.activation if one else "" for one in pair))
        for rank, pair in enumerate(zip_longest(view.drawings, view.exemplars), start=1)
    ]
    headers = ("Rank", "Drawings", "Exemplars")
    print_table(headers, rows, right=headers)
    say(
        f"{tried.num_above} of {len(tried.drawings)} drawings of “{tried.words}” excite the unit "
        "at least as much as its weakest exemplar."
    )
