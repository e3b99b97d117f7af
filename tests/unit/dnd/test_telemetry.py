"""Traces that are off cost nothing; what keeps them off is said, and stops no process."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
from observed import collecting

from dnd import telemetry

PARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


@pytest.fixture
def off() -> Iterator[None]:
    yield
    telemetry.stop()


def test_nothing_is_imported_and_no_span_is_made_while_traces_are_off() -> None:
    program = """
import sys
import dnd.clients, dnd.serving, dnd.logs
from dnd import telemetry
telemetry.start("scorer", {})
with telemetry.span("one", parent="00-a-b-01"):
    telemetry.annotate({"dnd.job": "1"})
    telemetry.fail("Internal")
    telemetry.record("two", 1.0, {})
    assert (telemetry.traceparent(), telemetry.metadata()) == ("", ())
assert not any(name.startswith("opentelemetry") for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_traces_stay_off_where_the_packages_are_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, off: None
) -> None:
    for name in ("opentelemetry", "opentelemetry.exporter.otlp.proto.grpc.trace_exporter"):
        monkeypatch.setitem(sys.modules, name, None)
    telemetry.start("scorer", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
    assert not telemetry.is_on()
    assert "pip install 'describe-and-dissect[telemetry]'" in caplog.text


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "only grpc is spoken"),
        ({"OTEL_SDK_DISABLED": "true"}, ""),
        ({"OTEL_TRACES_EXPORTER": "none"}, ""),
    ],
)
def test_traces_stay_off_where_the_environment_says_so(
    environment: dict[str, str], message: str, caplog: pytest.LogCaptureFixture, off: None
) -> None:
    where = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    telemetry.start("scorer", where | environment)
    assert not telemetry.is_on()
    assert message in caplog.text


def test_span_joins_the_trace_of_its_caller_and_its_first_error_counts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, off: None
) -> None:
    caplog.set_level(logging.INFO)
    with collecting() as (collector, address):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
        telemetry.start("scorer")

        def work() -> None:
            with telemetry.span(
                "outer", telemetry.SERVER, PARENT, {"dnd.job": "7"}, [PARENT, "bad"]
            ):
                assert telemetry.trace_of(telemetry.traceparent()) == telemetry.trace_of(PARENT)
                telemetry.record("inner", 2.0, {"dnd.unit": 3}, error="BadAnswer")
                telemetry.fail("NotFound")
                raise KeyError("x")

        with pytest.raises(KeyError):
            work()
        assert telemetry.traceparent() == ""
        telemetry.stop()
    inner, outer = sorted(collector.spans, key=lambda one: one.name)
    assert (outer.process, outer.parent) == ("mine", "0123456789abcdef")
    assert outer.links == ("0123456789abcdef0123456789abcdef",)
    assert outer.attributes == {"dnd.job": "7", "error.type": "NotFound"}
    assert (inner.parent, inner.trace, inner.failed) == (outer.id, outer.trace, True)
    assert inner.attributes == {"dnd.unit": 3, "error.type": "BadAnswer"}


@pytest.mark.parametrize("parent", ["", "nonsense", "00-zz-11-01", f"00-{'0' * 32}-{'0' * 16}-01"])
def test_bad_traceparent_of_a_caller_begins_a_new_trace(
    parent: str, monkeypatch: pytest.MonkeyPatch, off: None
) -> None:
    with collecting() as (_, address):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        telemetry.start("scorer")
        with telemetry.span("one", telemetry.SERVER, parent):
            assert len(telemetry.trace_of(telemetry.traceparent())) == 32
        telemetry.stop()
