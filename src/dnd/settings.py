"""Settings of a process: DND_* variables and flags of the same names, read in main only."""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from dnd.errors import BadSetting
from dnd.logs import FORMATS, LEVELS
from dnd.tls import TlsFiles, tls_files


@dataclass(frozen=True)
class ServerSettings:
    """What every gRPC server of the project needs.

    Attributes:
        host: Address to bind to; anything but loopback takes mutual TLS.
        port: TCP port of the gRPC server; 0 takes a free one and prints it.
        metrics_port: TCP port of Prometheus metrics over HTTP; 0 takes a free one.
        artifacts: Root of the artifact store: a folder, or s3://bucket/prefix, gs://bucket/prefix.
        endpoints_file: Where the server writes the ports it listens on (JSON); empty for nowhere.
        drain_s: Seconds between "not serving" and the end of the last call.
        log_level: Lines below it are left out: DEBUG, INFO, WARNING, ERROR or CRITICAL.
        log_format: "text" for people, or "json", one object in a line.
        tls_cert: PEM file of the process's certificate; empty for no TLS.
        tls_key: PEM file of its key.
        tls_ca: PEM file of the authority whose certificates callers and services must show.
        health_port: With TLS, TCP port where health is answered without it, for probes; 0 takes a
            free one.
    """

    host: str = "127.0.0.1"
    port: int = 0
    metrics_port: int = 0
    artifacts: str = ""
    endpoints_file: str = ""
    drain_s: float = 10.0
    log_level: str = "INFO"
    log_format: str = "text"
    tls_cert: str = ""
    tls_key: str = ""
    tls_ca: str = ""
    health_port: int = 0

    @property
    def tls(self) -> TlsFiles | None:
        """The files of mutual TLS; None without it."""
        return tls_files(self.tls_cert, self.tls_key, self.tls_ca)

    @property
    def is_guarded(self) -> bool:
        """Whether strangers are kept out, so that it may bind to other addresses than loopback."""
        return self.tls is not None

    def validate(self) -> None:
        """Raises BadSetting, naming the variable."""
        if not (self.is_guarded or is_loopback(self.host)):
            raise BadSetting(
                f"DND_HOST = {self.host!r}: without authentication a server binds to loopback only "
                "(127.0.0.1, ::1 or localhost); for other addresses set DND_TLS_CERT, DND_TLS_KEY "
                "and DND_TLS_CA."
            )
        for name in ("port", "metrics_port", "health_port"):
            if not 0 <= getattr(self, name) <= 65535:
                raise BadSetting(
                    f"DND_{name.upper()} = {getattr(self, name)}: expected 0 to 65535."
                )
        for name, value, known in (
            ("LEVEL", self.log_level, LEVELS),
            ("FORMAT", self.log_format, FORMATS),
        ):
            if value not in known:
                raise BadSetting(f"DND_LOG_{name} = {value!r}: expected {' or '.join(known)}.")
        if not self.artifacts:
            raise BadSetting("DND_ARTIFACTS is not set: name the folder or bucket of the store.")
        if self.drain_s < 0:
            raise BadSetting(f"DND_DRAIN_S = {self.drain_s}: expected 0 or more seconds.")


@dataclass(frozen=True)
class ModelServerSettings(ServerSettings):
    """What every server with a model of its own needs besides.

    Attributes:
        model: The weights: a folder or a hub name with a pinned revision, "name@revision".
        device: Torch device, "cpu", "cuda", "cuda:1", …
        dtype: "float32", "float16" or "bfloat16".
        threads: CPU threads of torch; 0 leaves torch's own choice.
        max_batch: Items of one forward pass at most.
        fixed_batch: Pad every batch to exactly max_batch items, so that results repeat bit by bit.
        max_wait_ms: How long an idle device waits for more items, milliseconds.
        max_queue: Items admitted and not yet answered; more are refused with RESOURCE_EXHAUSTED.
    """

    model: str = ""
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 0
    max_batch: int = 16
    fixed_batch: bool = False
    max_wait_ms: float = 10.0
    max_queue: int = 4096

    def validate(self) -> None:
        super().validate()
        if self.dtype not in ("float32", "float16", "bfloat16"):
            raise BadSetting(f"DND_DTYPE = {self.dtype!r}: expected float32, float16 or bfloat16.")
        for name in ("max_batch", "max_queue"):
            if getattr(self, name) < 1:
                raise BadSetting(f"DND_{name.upper()} = {getattr(self, name)}: expected >= 1.")
        for name in ("threads", "max_wait_ms"):
            if getattr(self, name) < 0:
                raise BadSetting(f"DND_{name.upper()} = {getattr(self, name)}: expected >= 0.")


REMOTE = "openai:"
"""What the name of a model behind an OpenAI-compatible API begins with."""


@dataclass(frozen=True)
class RemoteModelSettings(ModelServerSettings):
    """What a server needs besides whose model may be one behind an OpenAI-compatible API.

    Attributes:
        model: "openai:NAME" for such a model; otherwise a local one.
        base_url: Root of the API, "http://host:port/v1"; empty for OpenAI's own.
        api_key_file: A file with the key of the API; empty for an API without one.
        max_calls: Calls of the API at the same time.
        call_timeout_s: Time for one call of the API, seconds.
        answer_tokens: Tokens of an answer at most; 0 for the limit of the call. A model that
            thinks before it answers needs some hundreds.
    """

    base_url: str = ""
    api_key_file: str = ""
    max_calls: int = 8
    call_timeout_s: float = 60.0
    answer_tokens: int = 0

    @property
    def is_remote(self) -> bool:
        """Whether the model is behind an API."""
        return self.model.startswith(REMOTE)

    def validate(self) -> None:
        super().validate()
        if self.base_url and not self.base_url.startswith(("http://", "https://")):
            raise BadSetting(
                f"DND_BASE_URL = {self.base_url!r}: expected a URL such as 'http://host:port/v1'."
            )
        if self.max_calls < 1:
            raise BadSetting(f"DND_MAX_CALLS = {self.max_calls}: expected >= 1.")
        if self.call_timeout_s <= 0:
            raise BadSetting(
                f"DND_CALL_TIMEOUT_S = {self.call_timeout_s}: expected more than 0 seconds."
            )
        if self.answer_tokens < 0:
            raise BadSetting(f"DND_ANSWER_TOKENS = {self.answer_tokens}: expected >= 0.")
        if self.base_url and not self.is_remote:
            raise BadSetting(
                f"DND_BASE_URL is set, and DND_MODEL = {self.model!r} is a local model: name the "
                f"model of that API as '{REMOTE}NAME', or take DND_BASE_URL away."
            )


S = TypeVar("S", bound="ServerSettings")


def load(
    cls: type[S],
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    prog: str | None = None,
) -> S:
    """Settings of class `cls`: flags before DND_* variables before defaults.

    Raises:
        BadSetting: A variable or flag has a value that does not fit, or `validate` refuses it.
    """
    environ = os.environ if environ is None else environ
    hints = get_type_hints(cls)
    parser = argparse.ArgumentParser(prog=prog, description=(cls.__doc__ or "").split("\n")[0])
    for item in dataclasses.fields(cls):
        parser.add_argument(
            f"--{item.name.replace('_', '-')}",
            default=None,
            metavar=hints[item.name].__name__.upper(),
            help=f"DND_{item.name.upper()} (default: {item.default!r})",
        )
    flags = vars(parser.parse_args(argv))
    values: dict[str, Any] = {}
    for item in dataclasses.fields(cls):
        variable = f"DND_{item.name.upper()}"
        text = flags[item.name] if flags[item.name] is not None else environ.get(variable)
        if text is not None:
            values[item.name] = _parse(hints[item.name], text, variable)
    settings = cls(**values)
    settings.validate()
    return settings


def _parse(hint: type, text: str, variable: str) -> Any:
    if hint is bool:
        if text.lower() in ("1", "true", "yes", "on"):
            return True
        if text.lower() in ("0", "false", "no", "off", ""):
            return False
        raise BadSetting(f"{variable} = {text!r}: expected true or false.")
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            raise BadSetting(f"{variable} = {text!r}: expected a number.") from None
    if hint is Path:
        return Path(text)
    assert hint is str or not get_args(hint), f"no parser for {hint}"
    return text


def is_loopback(host: str) -> bool:
    """Whether `host` can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
