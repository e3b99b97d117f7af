"""Every error that the system raises on purpose, and its one way onto the wire.

    DndError
    ├── InvalidInput              the caller must change the request
    │   ├── BadSetting            a DND_* variable, a profile override, a job specification
    │   ├── UnknownName           a model, layer, probe set, profile or prompt set that is not there
    │   ├── UnitOutOfRange
    │   ├── EmptyProbeSet
    │   ├── BadImage              corrupt, too large, not an image
    │   ├── UnsafeModelFile       weights that would have to be unpickled
    │   └── RequestTooLarge
    ├── Unauthenticated           no token, or one that is not valid
    ├── PermissionDenied          the token's role or tenant is another one
    ├── NotFound                  a job, unit or artifact
    ├── AlreadyExists             the same request_id with another body
    ├── FailedPrecondition        a job in the wrong state for this call
    │   └── DigestMismatch        a replica with other weights than the job was frozen to
    ├── TooFewResults             an item's inputs are there, but too few of them
    ├── BadAnswer                 a model answered nonsense
    ├── Transient                 the same request may succeed later, nobody is to blame
    │   ├── Unavailable           a service is not up
    │   ├── VersionSkew           the two sides are of different versions, as in an upgrade
    │   ├── Overloaded            admission is full
    │   ├── DeadlineExceeded
    │   ├── Cancelled
    │   ├── LlmRateLimited
    │   └── LlmUnavailable        unreachable, or it answers 5xx
    ├── Systemic                  nothing of this stage can succeed until an operator acts
    │   ├── StorageFull
    │   ├── StorageRefused        wrong credentials, no right to a bucket
    │   ├── ModelMissing
    │   └── LlmRefused            401, 403, 404: key, account or model name are wrong
    └── Internal                  a defect of ours

`kind_of` tells the coordinator what to do about an error (ARCHITECTURE, "Failure is classified"):
only an ITEM error counts as an attempt of that item.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum


class Kind(Enum):
    """Who must act on an error before the same work can succeed."""

    ITEM = "item"  # this very item is bad: counts as an attempt
    TRANSIENT = "transient"  # try again later, at no cost to the item
    SYSTEMIC = "systemic"  # pause the stage until an operator has acted


class DndError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: A sentence that says what was given, what was expected and what to do.
        retry_after_s: When it is worth trying again, seconds; None where unknown.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class InvalidInput(DndError):
    """The request itself is wrong; the same request can never succeed."""


class BadSetting(InvalidInput):
    """A setting is missing, unknown or out of range."""


class UnknownName(InvalidInput):
    """A name that nothing is configured under."""


class UnitOutOfRange(InvalidInput):
    """A unit index that the layer does not have."""


class EmptyProbeSet(InvalidInput):
    """A probe set without a single readable image."""


class BadImage(InvalidInput):
    """Bytes that are no image we accept."""


class UnsafeModelFile(InvalidInput):
    """A model file that cannot be read without running code from it."""


class RequestTooLarge(InvalidInput):
    """More items or bytes than one request may carry."""


class Unauthenticated(DndError):
    """The server wants a token, and none or no valid one came."""


class PermissionDenied(DndError):
    """The token does not allow this."""


class NotFound(DndError):
    """There is no such job, unit or artifact."""


class AlreadyExists(DndError):
    """The id is taken by something else."""


class FailedPrecondition(DndError):
    """Right request, wrong moment."""


class DigestMismatch(FailedPrecondition):
    """The replica holds other weights than the job was frozen to."""


class TooFewResults(DndError):
    """Too few captions, drawings or candidates are left to go on."""


class BadAnswer(DndError):
    """A model answered something that cannot be used."""


class Transient(DndError):
    """May succeed later without anybody changing anything."""


class Unavailable(Transient):
    """The service cannot be reached or is shutting down."""


class VersionSkew(Transient):
    """One side does not know what the other one means: a rolling upgrade is on its way."""


class Overloaded(Transient):
    """Admission is full; carries `retry_after_s`."""


class DeadlineExceeded(Transient):
    """The time given for the call is over."""


class Cancelled(Transient):
    """The caller has gone."""


class LlmRateLimited(Transient):
    """The language model answered 429."""


class LlmUnavailable(Transient):
    """The language model cannot be reached or answered 5xx."""


class Systemic(DndError):
    """Fails for every item of the stage until an operator acts."""


class StorageFull(Systemic):
    """The artifact store, or the record, cannot take another byte."""


class StorageRefused(Systemic):
    """A bucket or server refuses us: wrong credentials, or no right to what is asked for."""


class ModelMissing(Systemic):
    """The configured weights are not there."""


class LlmRefused(Systemic):
    """The language model's server refuses us: key, account or model name."""


class Internal(DndError):
    """A defect of ours; details are in the server's log."""


# The one table to gRPC. Codes by name, so that this module imports nothing.
CODES: dict[type[DndError], str] = {
    DndError: "UNKNOWN",
    InvalidInput: "INVALID_ARGUMENT",
    BadSetting: "INVALID_ARGUMENT",
    UnknownName: "INVALID_ARGUMENT",
    UnitOutOfRange: "INVALID_ARGUMENT",
    EmptyProbeSet: "INVALID_ARGUMENT",
    BadImage: "INVALID_ARGUMENT",
    UnsafeModelFile: "INVALID_ARGUMENT",
    RequestTooLarge: "INVALID_ARGUMENT",
    Unauthenticated: "UNAUTHENTICATED",
    PermissionDenied: "PERMISSION_DENIED",
    NotFound: "NOT_FOUND",
    AlreadyExists: "ALREADY_EXISTS",
    FailedPrecondition: "FAILED_PRECONDITION",
    DigestMismatch: "FAILED_PRECONDITION",
    TooFewResults: "FAILED_PRECONDITION",
    BadAnswer: "DATA_LOSS",
    Transient: "UNAVAILABLE",
    Unavailable: "UNAVAILABLE",
    VersionSkew: "UNAVAILABLE",
    Overloaded: "RESOURCE_EXHAUSTED",
    DeadlineExceeded: "DEADLINE_EXCEEDED",
    Cancelled: "CANCELLED",
    LlmRateLimited: "RESOURCE_EXHAUSTED",
    LlmUnavailable: "UNAVAILABLE",
    Systemic: "FAILED_PRECONDITION",
    StorageFull: "RESOURCE_EXHAUSTED",
    StorageRefused: "PERMISSION_DENIED",
    ModelMissing: "FAILED_PRECONDITION",
    LlmRefused: "PERMISSION_DENIED",
    Internal: "INTERNAL",
}

# google.rpc.Code numbers of the codes above, for per-item errors.
CODE_NUMBERS: dict[str, int] = {
    "CANCELLED": 1,
    "UNKNOWN": 2,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "DATA_LOSS": 15,
    "UNAUTHENTICATED": 16,
}

_BY_REASON = {cls.__name__: cls for cls in CODES}
_BY_CODE: dict[str, type[DndError]] = {
    "CANCELLED": Cancelled,
    "INVALID_ARGUMENT": InvalidInput,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "NOT_FOUND": NotFound,
    "PERMISSION_DENIED": PermissionDenied,
    "UNAUTHENTICATED": Unauthenticated,
    "ALREADY_EXISTS": AlreadyExists,
    "RESOURCE_EXHAUSTED": Overloaded,
    "FAILED_PRECONDITION": FailedPrecondition,
    "INTERNAL": Internal,
    "UNAVAILABLE": Unavailable,
    "UNIMPLEMENTED": VersionSkew,
}


def kind_of(error: BaseException) -> Kind:
    """Who must act on `error`; what was not raised on purpose is a defect: an attempt."""
    if isinstance(error, Transient):
        return Kind.TRANSIENT
    if isinstance(error, (Systemic, DigestMismatch)):
        return Kind.SYSTEMIC
    return Kind.ITEM


def passing_error(answers: Iterable[object]) -> DndError | None:
    """The first error that is not the item's own, if there is one (`dnd.errors.kind_of`)."""
    errors = (answer for answer in answers if isinstance(answer, DndError))
    return next((error for error in errors if kind_of(error) is not Kind.ITEM), None)


def from_wire(
    reason: str, code: str, message: str, *, retry_after_s: float | None = None
) -> DndError:
    """The error that a server raised, from its class name or, without one, from its gRPC code."""
    cls = _BY_REASON.get(reason) or _BY_CODE.get(code, DndError)
    return cls(message, retry_after_s=retry_after_s)


def code_number(error: DndError) -> int:
    """The google.rpc.Code of `error`."""
    return CODE_NUMBERS[CODES[type(error)]]


def item_error_from_wire(reason: str, number: int, message: str) -> DndError:
    """The error of one item of a batch, from its wire form."""
    code = next((name for name, n in CODE_NUMBERS.items() if n == number), "UNKNOWN")
    return from_wire(reason, code, message)


def suggest(given: str, known: list[str], *, what: str) -> str:
    """A sentence for an unknown name: the near names first, then what there is."""
    from difflib import get_close_matches

    near = get_close_matches(given, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
    shown = ", ".join(known[:40]) + (", …" if len(known) > 40 else "")
    return f"There is no {what} {given!r}.{hint} Known: {shown or 'none'}."
