"""What callers hand to us: specifications, the same one a second time, page sizes and tokens."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TypeVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from dnd.convert import from_message
from dnd.errors import InvalidInput
from dnd.jobs import EvaluationSettings, JobSpec, spec_from_message
from dnd.serving.inputs import check_count
from dnd.v1 import coordinator_pb2 as pb2
from dnd_services.coordinator.evaluating import Question

T = TypeVar("T")

_MAX_PAGE, _DEFAULT_PAGE = 1000, 100
_MAX_LABELS = 1_000_000


def read_spec(spec: pb2.JobSpec) -> JobSpec:
    """A specification. What an older server would overlook is refused, as the job would differ.

    Raises:
        InvalidInput: It has fields that this server does not know.
    """
    parts = (spec, spec.limits, *spec.layers)
    unknown = sorted({field.field_number for part in parts for field in UnknownFieldSet(part)})
    if unknown:
        raise InvalidInput(
            "The job's specification has fields that this server does not know (numbers "
            f"{', '.join(map(str, unknown))}): leave them out, or ask a newer server."
        )
    return spec_from_message(spec)


def read_question(request: pb2.EvaluateJobRequest) -> Question:
    """What is to be evaluated, and how.

    Raises:
        InvalidInput: A label set has no name of its own, or a label is empty or too long.
    """
    sets: dict[str, dict[tuple[str, int], str]] = {}
    for one in request.label_sets:
        if one.name in sets:
            raise InvalidInput(
                f"Two label sets are named {one.name[:70]!r}: name each differently."
            )
        check_count(f"labels in set {one.name[:70]!r}", len(one.labels), 1, _MAX_LABELS)
        for label in one.labels:
            check_count(f"characters of a label in {one.name[:70]!r}", len(label.label), 1, 400)
        sets[one.name] = {(label.layer, label.unit): label.label for label in one.labels}
    settings = from_message(request.settings, EvaluationSettings)
    return Question(request.job_id, settings, sets)


def hash_spec(spec: pb2.JobSpec) -> str:
    """Hash of a specification, whatever the order of its overrides."""
    text = json.dumps(MessageToDict(spec), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def page_size(size: int) -> int:
    """Items of a page: 1 to 1000, 0 for 100."""
    check_count("as its page_size", size, 0, _MAX_PAGE)
    return size or _DEFAULT_PAGE


def kind_of_list(name: str, request: Message) -> str:
    """What the tokens of a list are good for: the same list with the same filters."""
    asked = type(request)()
    asked.CopyFrom(request)
    for field in ("context", "page_size", "page_token"):
        asked.ClearField(field)
    digest = hashlib.sha256(asked.SerializeToString(deterministic=True)).hexdigest()
    return f"{name}:{digest[:16]}"


def make_token(kind: str, value: str | int) -> str:
    """An opaque token: the next page starts after or at `value`."""
    return base64.urlsafe_b64encode(json.dumps([kind, value]).encode()).decode()


def read_token(token: str, kind: str, cls: type[T]) -> T:
    """The value of a token. Raises InvalidInput for one that we did not make for this list."""
    try:
        found = json.loads(base64.urlsafe_b64decode(token))
    except ValueError:
        found = None
    if isinstance(found, list) and found[:1] == [kind] and type(found[-1]) is cls:
        return found[-1]
    raise InvalidInput(
        f"The token {token[:40]!r} is not known here: expected the next_page_token of the page "
        "before, of the same list with the same filters, or a resume_token of a watch."
    )


def watch_token(job: pb2.Job) -> str:
    """The resume token of a watch that has answered `job`."""
    digest = hashlib.sha256(job.SerializeToString(deterministic=True)).hexdigest()
    return make_token("watch", f"{job.id}:{digest[:32]}")


def read_watch_token(token: str, job_id: str) -> str:
    """The job that a watch goes on with.

    Raises:
        InvalidInput: The token is none, or of another job than `job_id`.
    """
    watched = read_token(token, "watch", str).partition(":")[0]
    if job_id not in ("", watched):
        raise InvalidInput(f"The resume_token is of job {watched}, not of {job_id[:40]!r}.")
    return watched
