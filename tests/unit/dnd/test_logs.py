"""Log lines: their fields, and what is struck out of them."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dnd import logs
from dnd.errors import BadSetting
from dnd.serving.remote_chat import read_key
from dnd.settings import ServerSettings, load
from dnd.tokens import make_secret, read_secret


@pytest.fixture(autouse=True)
def nothing_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_hidden", set())


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """The root logger; it and what else `set_up` changes are at the end as they were before."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    found = logging.getLogger()
    before = found.handlers[:], found.level
    yield found
    found.handlers[:], level = before
    found.setLevel(level)
    logging.captureWarnings(False)


def json_line(message: str, *args: object, **fields: object) -> dict[str, object]:
    record = logging.LogRecord("dnd.x", logging.INFO, "", 0, message, args, None)
    with logs.bound(**fields):
        found: dict[str, object] = json.loads(logs.JsonLines("scorer").format(record))
    return found


def test_line_carries_the_fields_of_all_blocks_around_it_and_no_empty_ones() -> None:
    with logs.bound(job="j", stage="caption", layer=""):
        line = json_line("done %d", 3, stage="score", units=[4, 5])
    assert line["message"] == "done 3"
    assert (line["job"], line["stage"], line["units"]) == ("j", "score", [4, 5])
    assert "layer" not in line
    assert "job" not in json_line("later")


def test_lines_with_breaks_quotes_and_other_scripts_stay_one_line() -> None:
    record = logging.LogRecord("dnd.x", logging.INFO, "", 0, 'a\n"b" ü 猫', (), None)
    text = logs.JsonLines("scorer").format(record)
    assert "\n" not in text
    assert json.loads(text)["message"] == 'a\n"b" ü 猫'


@pytest.mark.parametrize(
    "text",
    [
        "cannot open postgresql+psycopg://dnd:SECRET-1@host:5432/dnd",
        "Connected to redis://:SECRET-1@127.0.0.1:1/0",
        "authorization: Bearer SECRET-1",
        "key sk-SECRET-1aaaaaaaaaaaaaaaaa was refused",
    ],
)
def test_what_looks_like_a_secret_is_struck_out(text: str) -> None:
    assert "SECRET-1" not in logs.strike_out(text)
    assert logs.STRUCK_OUT in logs.strike_out(text)


def test_tokens_of_the_project_look_like_secrets() -> None:
    assert logs.strike_out(f"a {make_secret()} b") == f"a {logs.STRUCK_OUT} b"


def test_nothing_is_left_of_a_secret_that_begins_with_another() -> None:
    secret = "correct-horse-battery-staple"
    for length in range(8, len(secret) + 1):
        logs.hide(secret[:length])
    assert logs.strike_out(f"a {secret} b") == f"a {logs.STRUCK_OUT} b"


@pytest.mark.parametrize(
    "text", ["http://host:80/path?to=a@b", "unit 7 of dnd_backlog_seconds", "file:///a/b"]
)
def test_other_text_stays(text: str) -> None:
    assert logs.strike_out(text) == text


def test_secrets_of_files_and_variables_are_struck_out_of_lines(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    root: logging.Logger,
) -> None:
    (tmp_path / "key").write_text("key-of-the-api\n")
    (tmp_path / "token").write_text("token-of-the-admin\n")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", 'aws"secret')
    monkeypatch.setenv("DND_DATABASE", "postgresql://dnd:p%40ssword@host/dnd")
    read_key(str(tmp_path / "key"))
    read_secret(str(tmp_path / "token"), "DND_ADMIN_TOKEN_FILE")
    for style in logs.FORMATS:
        logs.set_up("scorer", "INFO", style)
        root.info("key-of-the-api, token-of-the-admin, aws%ssecret, p%%40ssword, p@ssword", '"')
        try:
            raise ValueError("key-of-the-api")
        except ValueError:
            root.exception("failed")
    text = capsys.readouterr().err
    # Five in the first line; in the traceback the line of the program, and the error.
    assert text.count(logs.STRUCK_OUT) == len(logs.FORMATS) * (5 + 2)
    for secret in ("key-of-the-api", "token-of-the-admin", "ssword", "aws"):
        assert secret not in text


@pytest.mark.parametrize(
    ("variable", "value"), [("DND_LOG_LEVEL", "loud"), ("DND_LOG_FORMAT", "xml")]
)
def test_setting_that_is_not_known_is_refused(variable: str, value: str) -> None:
    with pytest.raises(BadSetting, match=f"{variable} = '{value}': expected"):
        load(ServerSettings, [], {"DND_ARTIFACTS": "/x", variable: value})
