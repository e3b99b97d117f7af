"""The methods that try something on the units of a job: a picture, or words."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from dnd import stages
from dnd.convert import to_message
from dnd.errors import InvalidInput
from dnd.serving.inputs import request_context
from dnd.trials import ExcitedUnit, TriedWords
from dnd.types import ImageSet
from dnd.v1 import coordinator_pb2 as pb2
from dnd_services.coordinator import frozen, states, trying, views
from dnd_services.coordinator.answering import Answering, GrpcContext
from dnd_services.coordinator.budgets import Budgets
from dnd_services.coordinator.models import ImageSetRow, JobRow
from dnd_services.coordinator.store import jobs, reading, spending
from dnd_services.coordinator.store.reading import UnitView
from dnd_services.coordinator.trying import Trial


class TrialMethods(Answering):
    """Tries what a caller sends; models work for it at once, before batch work.

    Attributes:
        _budgets: Limits of tenants, which drawings of words are held against.
    """

    _budgets: Budgets

    async def TryImage(
        self, request: pb2.TryImageRequest, context: GrpcContext
    ) -> pb2.TryImageResponse:
        asked = request_context(request)

        def light_up() -> list[ExcitedUnit]:
            with self._store.reading() as session:
                job = jobs.find_job(session, asked.tenant, request.job_id)
                trial = trying.open_trial(session, job, self._services)
                layers = trying.labelled_layers(session, job)
            with trying.turn():  # decoding takes memory too
                image = trying.shrink(request.image)
                lit = trying.light_up(trial, layers, image)
            with self._store.reading() as session:
                seen = [reading.find_unit(session, job, one.layer, one.unit) for one in lit]
            return [
                trying.excited_unit(
                    one, image, [activation for _, activation in self._exemplars(job, view)]
                )
                for one, view in zip(lit, seen, strict=True)
            ]

        units = await self._ask(light_up)
        return pb2.TryImageResponse(units=[to_message(one, pb2.ExcitedUnit) for one in units])

    async def TryWords(
        self, request: pb2.TryWordsRequest, context: GrpcContext
    ) -> pb2.TryWordsResponse:
        asked = request_context(request)
        if not request.layer:
            raise InvalidInput("No layer is given: a unit is named by its layer and its number.")
        words = trying.check_words(request.words)

        def draw() -> TriedWords:
            with self._store.reading() as session:
                job = jobs.find_job(session, asked.tenant, request.job_id)
                view = reading.find_unit(session, job, request.layer, request.unit)
                trial = trying.open_trial(session, job, self._services)
            unit, exemplars = (request.layer, request.unit), self._exemplars(job, view)
            with trying.turn():
                drawn = self._draw(job, trial, words)
                return trying.measure_drawings(trial, unit, words, drawn, exemplars)

        return to_message(await self._ask(draw), pb2.TryWordsResponse)

    def _draw(self, job: JobRow, trial: Trial, words: str) -> ImageSet:
        """Drawings of words: those that there are, or new ones, which the tenant pays for.

        Raises:
            FailedPrecondition: The tenant has drawn as many images as it may.
        """
        prompt = stages.prompt_for(trial.plan, words)
        shared = self._settings.share_drawings
        key = frozen.set_key(job.tenant, trial.plan, prompt, shared=shared)
        with self._store.reading() as session:
            images = _find_drawings(session, key)
        if images and all(ref in self._services.artifacts for ref in images):
            return ImageSet(frozen.artifact_key(key), images)
        with self._store.reading() as session:
            spending.expect_images_left(session, job.tenant, self._budgets.rules_of(job.tenant))
        drawn = trying.draw(trial, prompt)
        with self._store.writing() as session:
            spending.spend_on_trial(session, job.tenant, len(drawn.images))
        return drawn

    def _exemplars(self, job: JobRow, view: UnitView) -> list[tuple[str, float]]:
        """The exemplars of a unit with its activations, strongest first."""
        record = views.read_record(job, view, self._services.artifacts, views.error_of(job, view))
        return [(one["image"], one["activation"]) for one in record.get("exemplars") or []]


def _find_drawings(session: Session, key: str) -> tuple[str, ...]:
    """The images of a set that has been drawn; empty where it has not."""
    statement = select(ImageSetRow.images).where(
        ImageSetRow.key == key, ImageSetRow.state == states.DONE
    )
    return tuple(session.scalar(statement) or ())
