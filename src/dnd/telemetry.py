"""Traces: spans of calls and tasks, sent by OTLP to what OTEL_EXPORTER_OTLP_ENDPOINT names.

Off, nothing is imported and no span is made. The packages are those of the extra `telemetry`.
Between processes a context travels as a W3C `traceparent`, as text: in the metadata of calls, in
headers of task messages, in the record of a job.
"""

from __future__ import annotations

import contextvars
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanContext

log = logging.getLogger(__name__)

TRACEPARENT = "traceparent"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = range(5)
"""Kinds of spans, numbered as OpenTelemetry's SpanKind."""

Value: TypeAlias = str | int | float | bool | Sequence[str] | Sequence[int]
P = ParamSpec("P")
T = TypeVar("T")

_provider: TracerProvider | None = None


def start(process: str, environ: Mapping[str, str] = os.environ) -> None:
    """Turns traces on if the environment names a collector; the other OTEL_* variables hold, too.

    What keeps them off though a collector is named is logged: it must not keep a process from work.

    Args:
        process: The service is called "dnd-PROCESS", unless OTEL_SERVICE_NAME says otherwise.
    """
    global _provider
    endpoint = next((environ[name] for name in ENDPOINTS if environ.get(name)), "")
    disabled = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if not endpoint or disabled or environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), "grpc")
    if protocol != "grpc":
        log.warning("traces are off: OTLP over %r is asked for, and only grpc is spoken", protocol)
        return
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        log.warning(
            "traces are off: OTEL_EXPORTER_OTLP_ENDPOINT is set, and %s is not installed: "
            "pip install 'describe-and-dissect[telemetry]'",
            error.name,
        )
        return
    resource: dict[str, str | int] = {
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        "process.pid": os.getpid(),
    }
    if not environ.get("OTEL_SERVICE_NAME"):
        resource["service.name"] = f"dnd-{process}"
    _provider = TracerProvider(resource=Resource.create(resource))
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    log.info("traces go to %s", endpoint)


def stop() -> None:
    """Sends what has not been sent, and turns traces off."""
    global _provider
    if _provider is not None:
        _provider.shutdown()
        _provider = None


def is_on() -> bool:
    """Whether spans are made in this process."""
    return _provider is not None


@contextmanager
def span(
    name: str,
    kind: int = INTERNAL,
    parent: str = "",
    attributes: Mapping[str, Value] | None = None,
    links: Sequence[str] = (),
) -> Iterator[None]:
    """A span around a block; an exception that leaves the block marks it as failed.

    Args:
        parent: A `traceparent`; empty for the span that is open in this context.
        links: `traceparent`s of other spans that it has to do with.
    """
    if _provider is None:
        yield
        return
    from opentelemetry import context
    from opentelemetry.trace import set_span_in_context

    opened = _start_span(name, kind, parent, attributes, links)
    before = context.get_current()
    context.attach(set_span_in_context(opened, before))
    try:
        yield
    except Exception as error:  # whoever is cancelled has not failed
        _fail(opened, type(error).__name__)
        raise
    finally:  # perhaps in another context, where a generator that nobody reads is closed
        context.attach(before)
        opened.end()


def record(
    name: str,
    seconds: float,
    attributes: Mapping[str, Value],
    parent: str = "",
    links: Sequence[str] = (),
    error: str = "",
) -> None:
    """A span that ends now and began `seconds` ago.

    Args:
        parent, links: As of `span`.
        error: The class of what went wrong; empty for nothing.
    """
    if _provider is None:
        return
    now = time.time_ns()
    made = _start_span(name, INTERNAL, parent, attributes, links, now - round(seconds * 1e9))
    if error:
        _fail(made, error)
    made.end(now)


def annotate(attributes: Mapping[str, Value]) -> None:
    """Adds attributes to the span that is open in this context."""
    if _provider is not None:
        _current().set_attributes(attributes)


def fail(error: str) -> None:
    """Marks the span that is open in this context as failed; `error` is a class name."""
    if _provider is not None:
        _fail(_current(), error)


def traceparent() -> str:
    """The span that is open in this context, as W3C `traceparent`; empty for none."""
    if _provider is None:
        return ""
    context = _current().get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def trace_of(parent: str) -> str:
    """The trace id in a `traceparent`, 32 hexadecimal digits; empty for an empty or bad one."""
    parts = parent.split("-")
    return parts[1] if len(parts) == 4 else ""


def carried(function: Callable[P, T]) -> Callable[P, T]:
    """`function` for another thread, where it finds the span and the fields of logs of this one."""
    context = contextvars.copy_context()

    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return context.copy().run(function, *args, **kwargs)

    return run


def _current() -> Span:
    from opentelemetry.trace import get_current_span

    return get_current_span()


def _fail(failed: Span, error: str) -> None:
    """The first error counts: what comes after it is how it is passed on."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Status, StatusCode

    if isinstance(failed, ReadableSpan) and failed.status.status_code is StatusCode.UNSET:
        failed.set_status(Status(StatusCode.ERROR, error))
        failed.set_attribute("error.type", error)


def _start_span(
    name: str,
    kind: int,
    parent: str,
    attributes: Mapping[str, Value] | None,
    links: Sequence[str],
    start_ns: int | None = None,
) -> Span:
    from opentelemetry.trace import Link, NonRecordingSpan, SpanKind, set_span_in_context

    assert _provider is not None
    above = _context_of(parent)
    linked = [Link(context) for one in links if (context := _context_of(one))]
    return _provider.get_tracer("dnd").start_span(
        name,
        context=set_span_in_context(NonRecordingSpan(above)) if above else None,
        kind=SpanKind(kind),
        attributes=attributes,
        links=linked,
        start_time=start_ns,
    )


def _context_of(parent: str) -> SpanContext | None:
    """The context in a `traceparent` that came from elsewhere; None for an empty or bad one."""
    from opentelemetry.trace import SpanContext, TraceFlags

    parts = parent.split("-")
    try:
        _, trace, span_id, flags = parts
        found = SpanContext(
            int(trace, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
        )
    except ValueError:
        return None
    return found if found.is_valid else None


def metadata() -> tuple[tuple[str, str], ...]:
    """What a call carries so that the spans of its server join this trace."""
    parent = traceparent()
    return ((TRACEPARENT, parent),) if parent else ()


def parent_in(sent: Iterable[tuple[str, Any]] | None) -> str:
    """The `traceparent` in the metadata of a call; empty for none."""
    return next((str(value) for key, value in sent or () if key == TRACEPARENT), "")
