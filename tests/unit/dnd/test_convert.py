"""Types and messages are one-to-one."""

import dataclasses

import pytest

from dnd import convert, profiles, types
from dnd.errors import BadImage, Internal, InvalidInput
from dnd.profiles import PROFILES, ScoringFunction
from dnd.v1 import activations_pb2, scorer_pb2, summarizer_pb2, types_pb2

EXEMPLARS = types.UnitExemplars(
    unit=7,
    exemplars=(
        types.Exemplar("sha256:a", "sha256:b", types.Box(1, 2, 3, 4), 0.5),
        types.Exemplar("sha256:b", "sha256:b", None, 0.25),
    ),
    deciles=(types.DecileImage("sha256:c", 9, 0.125),),
    activity=types.UnitActivity.SPARSE,
    activations_ref="sha256:d",
)
SCORE = types.ConceptScore(1, 0.5, (0, 2), 1.0, 2.0, 2.0, 0.25, 0.5, probe_correlation=0.0)


@pytest.mark.parametrize(
    ("value", "message_class"),
    [
        (EXEMPLARS, activations_pb2.UnitExemplars),
        (types.Ranking((SCORE,), (0,)), scorer_pb2.Ranking),
        (
            types.Proposal(
                (types.Candidate("a cat", types.CandidateOrigin.CAPTION_PHRASE),),
                types.TokenUse(1, 2, 3),
            ),
            summarizer_pb2.Proposal,
        ),
        (types.ModelInfo("m", "d", "a", "float32", "cpu", 16), types_pb2.ModelInfo),
        (
            types.LayerInfo("fc", "Linear", types.LayerKind.LINEAR, 3, (3,), ("a", "b", "c")),
            activations_pb2.LayerInfo,
        ),
        (types.Measurement("key", ("sha256:a",)), activations_pb2.Measurement),
    ],
)
def test_value_survives_the_wire(value: object, message_class: type) -> None:
    message = convert.to_message(value, message_class)
    again = message_class.FromString(message.SerializeToString())
    assert convert.from_message(again, type(value)) == value


@pytest.mark.parametrize(
    ("group", "message_class"),
    [
        ("index", activations_pb2.IndexSettings),
        ("exemplars", activations_pb2.ExemplarSettings),
        ("propose", summarizer_pb2.ProposeSettings),
        ("score", scorer_pb2.ScoreSettings),
    ],
)
@pytest.mark.parametrize("profile", PROFILES)
def test_settings_of_every_profile_survive(profile: str, group: str, message_class: type) -> None:
    settings = getattr(PROFILES[profile], group)
    back = convert.from_message(convert.to_message(settings, message_class), type(settings))
    on_wire = set(message_class.DESCRIPTOR.fields_by_name)  # type: ignore[attr-defined]
    for field in dataclasses.fields(settings):
        if field.name in on_wire:
            assert getattr(back, field.name) == getattr(settings, field.name)


def test_every_settings_field_of_the_protos_is_in_a_profile() -> None:
    pairs = [
        (activations_pb2.IndexSettings, profiles.IndexSettings),
        (activations_pb2.ExemplarSettings, profiles.ExemplarSettings),
        (summarizer_pb2.ProposeSettings, profiles.ProposeSettings),
        (scorer_pb2.ScoreSettings, profiles.ScoreSettings),
    ]
    for message_class, cls in pairs:
        known = {field.name for field in dataclasses.fields(cls)}
        assert set(message_class.DESCRIPTOR.fields_by_name) <= known


def test_absent_box_stays_absent() -> None:
    message = convert.to_message(EXEMPLARS, activations_pb2.UnitExemplars)
    assert [e.HasField("box") for e in message.exemplars] == [True, False]


def test_unspecified_enum_is_invalid_input() -> None:
    with pytest.raises(InvalidInput, match="ScoringFunction is UNSPECIFIED: expected one of MEAN"):
        convert.from_message(scorer_pb2.ScoreSettings(), profiles.ScoreSettings)


def test_enums_have_the_same_members_on_both_sides() -> None:
    pairs = [
        (ScoringFunction, convert.field_enum(scorer_pb2.ScoreSettings, "function")),
        (profiles.Pooling, convert.field_enum(activations_pb2.IndexSettings, "pooling")),
        (types.UnitActivity, convert.field_enum(activations_pb2.UnitExemplars, "activity")),
        (types.LayerKind, convert.field_enum(activations_pb2.LayerInfo, "kind")),
        (types.CandidateOrigin, convert.field_enum(types_pb2.Candidate, "origin")),
    ]
    for cls, descriptor in pairs:
        assert len(descriptor.values) == len(cls) + 1
        for member in cls:
            assert (
                convert.enum_member(convert.enum_value(member, descriptor), descriptor, cls)
                is member
            )


def test_error_of_an_item_survives_the_wire() -> None:
    message = convert.to_item(BadImage("too small"), activations_pb2.UnitExemplars)
    error = convert.from_item(message, types.UnitExemplars)
    assert isinstance(error, BadImage)
    assert error.message == "too small"


def test_defect_does_not_leak_its_details() -> None:
    message = convert.error_message(KeyError("/a/secret/path"))
    assert message.reason == Internal.__name__
    assert "secret" not in message.message


def test_inline_bytes_are_refused_where_a_reference_is_needed() -> None:
    message = activations_pb2.ImageSet(key="k", images=[types_pb2.Image(data=b"x")])
    with pytest.raises(InvalidInput, match="bytes where a reference is needed"):
        convert.from_message(message, types.ImageSet)
