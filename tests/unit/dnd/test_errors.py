"""The error tree and its one table."""

import grpc
import pytest

from dnd import errors
from dnd.errors import CODE_NUMBERS, CODES, DndError, Kind, kind_of


def all_classes(cls: type[DndError]) -> list[type[DndError]]:
    return [cls, *(found for sub in cls.__subclasses__() for found in all_classes(sub))]


def test_table_names_every_class_of_the_tree() -> None:
    assert set(CODES) == set(all_classes(DndError))


def test_codes_and_numbers_are_those_of_grpc() -> None:
    for code in CODES.values():
        assert getattr(grpc.StatusCode, code).value[0] == CODE_NUMBERS[code]


@pytest.mark.parametrize("cls", all_classes(DndError))
def test_error_survives_the_wire(cls: type[DndError]) -> None:
    error = cls("what was given", retry_after_s=1.5)
    back = errors.from_wire(
        type(error).__name__, CODES[cls], error.message, retry_after_s=error.retry_after_s
    )
    assert (type(back), back.message, back.retry_after_s) == (cls, "what was given", 1.5)
    item = errors.item_error_from_wire(cls.__name__, errors.code_number(error), error.message)
    assert type(item) is cls


def test_code_decides_when_a_stranger_answers() -> None:
    assert type(errors.from_wire("", "UNAVAILABLE", "")) is errors.Unavailable
    assert type(errors.from_wire("NoClassOfOurs", "NOT_FOUND", "")) is errors.NotFound
    assert type(errors.from_wire("", "UNIMPLEMENTED", "")) is errors.VersionSkew
    assert type(errors.from_wire("", "ABORTED", "")) is DndError


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.BadImage("x"), Kind.ITEM),
        (errors.BadAnswer("x"), Kind.ITEM),
        (ValueError("a defect"), Kind.ITEM),
        (errors.Overloaded("x"), Kind.TRANSIENT),
        (errors.LlmRateLimited("x"), Kind.TRANSIENT),
        (errors.LlmRefused("x"), Kind.SYSTEMIC),
        (errors.StorageFull("x"), Kind.SYSTEMIC),
        (errors.StorageRefused("x"), Kind.SYSTEMIC),
        (errors.DigestMismatch("x"), Kind.SYSTEMIC),
    ],
)
def test_kind_says_who_must_act(error: Exception, kind: Kind) -> None:
    assert kind_of(error) is kind


def test_suggestion_names_near_names_first_and_then_all() -> None:
    text = errors.suggest("layer4.conv1", ["conv1", "layer4.0.conv1", "fc"], what="layer")
    assert "Did you mean 'layer4.0.conv1'" in text
    assert text.endswith("Known: conv1, layer4.0.conv1, fc.")
