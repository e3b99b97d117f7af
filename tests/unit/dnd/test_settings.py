"""Settings come from DND_* variables and flags, and a bad one stops the process by name."""

import pytest

from dnd import settings
from dnd.errors import BadSetting
from dnd.settings import ModelServerSettings, load


def test_flag_goes_before_variable_before_default() -> None:
    environ = {"DND_ARTIFACTS": "a", "DND_DEVICE": "cuda:1", "DND_MAX_BATCH": "8"}
    found = load(ModelServerSettings, ["--device", "cpu", "--fixed-batch", "true"], environ)
    assert (found.device, found.max_batch, found.fixed_batch, found.dtype) == (
        "cpu",
        8,
        True,
        "float32",
    )


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("DND_MAX_BATCH", "many", "DND_MAX_BATCH = 'many': expected a number"),
        ("DND_MAX_BATCH", "0", "DND_MAX_BATCH = 0: expected >= 1"),
        ("DND_FIXED_BATCH", "perhaps", "DND_FIXED_BATCH = 'perhaps': expected true or false"),
        ("DND_HOST", "0.0.0.0", "DND_HOST = '0.0.0.0': without authentication"),
        ("DND_HOST", "example.org", "loopback only"),
        ("DND_PORT", "70000", "DND_PORT = 70000"),
        ("DND_DTYPE", "int8", "DND_DTYPE = 'int8'"),
        ("DND_ARTIFACTS", "", "DND_ARTIFACTS is not set"),
    ],
)
def test_bad_setting_is_named(variable: str, value: str, message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        load(ModelServerSettings, [], {"DND_ARTIFACTS": "a", variable: value})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_is_recognised(host: str) -> None:
    assert settings.is_loopback(host)
