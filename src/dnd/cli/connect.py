"""Finding the coordinator: a server that is named, the home's stack, or one for this command."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from dnd.cli.stack_view import StackView
from dnd.client import Client
from dnd.clients import JUDGE
from dnd.errors import BadSetting, NotFound, Unavailable
from dnd.stack import (
    Home,
    StackConfig,
    dead_members,
    describe_death,
    load_config,
    running_server,
    start,
    stop,
)
from dnd.stack.probes import with_names_of
from dnd.tls import tls_of_environment
from dnd.tokens import read_secret, secret_of_environment

PRIVATE_STOP_S = 10.0
COORDINATOR = "coordinator"


@dataclass(frozen=True)
class Session:
    """A connection, and the local stack behind it.

    Attributes:
        home: The stack of this machine; None for a server elsewhere.
        private: The stack was started for this command and ends with it.
        config: Of the private stack.
    """

    client: Client
    home: Home | None = None
    private: bool = False
    config: StackConfig | None = None

    def check(self) -> None:
        """Raises Unavailable if a process of the local stack has died."""
        if self.home is not None and (dead := dead_members(self.home)):
            message = describe_death(self.home, dead)
            if not self.private:
                message += "\nStart it again with `dnd up --repair`; the job then goes on."
            raise Unavailable(message)


def find_server(server: str, home: Path) -> Session | None:
    """A connection to `server`, else to the stack that runs in `home`; None if none does.

    Raises:
        BadSetting: `server` is no address, or the files of DND_TLS_… are no certificates.
        Unavailable: The home's coordinator has died, and other processes of the stack live.
    """
    # Loopback is no proxy's business.
    os.environ.setdefault("no_grpc_proxy", "127.0.0.1,localhost,::1")
    if server:
        _expect_address(server)
        token = secret_of_environment(os.environ)
        return Session(Client(server, token=token, tls=tls_of_environment(os.environ)))
    place = Home(home)
    if target := running_server(place):
        return Session(Client(target, token=_token_of(place)), place)
    dead = dead_members(place)
    names = [one.name for one in dead]
    if COORDINATOR in names and len(dead) < len(place.read_state().processes):
        raise Unavailable(
            describe_death(place, dead[names.index(COORDINATOR) :])
            + "\nStart it again with `dnd up --repair`."
        )
    return None


def _token_of(home: Home) -> str:
    """The token for the stack of a home: of the environment, else its operator's."""
    given = secret_of_environment(os.environ)
    settings = home.read_state().config.get("coordinator", {})
    if not given and settings.get("auth") == "tokens" and settings.get("admin_token_file"):
        return read_secret(settings["admin_token_file"], "coordinator.admin_token_file")
    return given


def _expect_address(server: str) -> None:
    for part in server.split(","):
        scheme, _, port = part.rpartition(":")
        if not part.startswith(("file:", "unix:")) and not (scheme and port.isdigit()):
            raise BadSetting(
                f"--server {server!r}: expected HOST:PORT, for example 127.0.0.1:7000 "
                "(`dnd status` shows the address of the coordinator)."
            )


@contextmanager
def _using(session: Session, server: str) -> Iterator[Session]:
    """Closes the session at the end; names the address of a server that cannot be reached."""
    with session.client:
        try:
            yield session
        except Unavailable as error:
            if not server:
                raise
            raise Unavailable(
                f"{server}: {error.message.rstrip('.')}. Check --server (or DND_SERVER), and that "
                "a coordinator runs there."
            ) from None


@contextmanager
def connected(server: str, home: Path) -> Iterator[Session]:
    """A session with a server that is there already.

    Raises:
        NotFound: No server is named, and no stack runs in the home.
    """
    session = find_server(server, home)
    if session is None:
        raise NotFound(
            f"No stack is running in {Home(home).path}: start one with `dnd up`, or name a "
            "coordinator with --server HOST:PORT."
        )
    with _using(session, server) as used:
        yield used


@contextmanager
def connected_or_private(
    server: str,
    home: Path,
    *,
    private: bool = False,
    config: Path | None = None,
    only: Sequence[str] = (),
) -> Iterator[Session]:
    """A session with a server, or with a stack that is started for it and stopped at the end."""
    session = None if private and not server else find_server(server, home)
    if session is not None:
        with _using(session, server) as used:
            yield used
        return
    with private_stack(home, load_config(config), only=only) as made:
        yield made


@contextmanager
def private_stack(
    home: Path, config: StackConfig, *, only: Sequence[str] = (), own_folder: bool = False
) -> Iterator[Session]:
    """A stack for one command, which takes specifications; what it has computed stays for the next.

    It has no judge: labels are evaluated on a stack that stays.

    Args:
        home: The stack lives in the folder "private" of this home, and knows its models and probe
            sets.
        own_folder: It lives in `home` itself.
        only: Names of the programs to start; all of them if empty.
    """
    place = Home(home if own_folder else Home(home).path / "private")
    if not own_folder:
        config = with_names_of(Home(home), config)
    judge = {**config.services[JUDGE], "model": ""}
    config = replace(config, allow_specs=True, services={**config.services, JUDGE: judge})
    with place.lock():
        if place.read_state().processes:  # of a command that was killed
            stop(place, PRIVATE_STOP_S)
        print(f"Starting a stack for this command in {place.path}", file=sys.stderr)
        with StackView(sys.stderr) as view:
            start(place, config, view.show, only=only)
        try:
            target = running_server(place)
            with Client(target or f"file:{place.endpoints('coordinator')}") as client:
                yield Session(client, place, private=True, config=config)
        finally:
            with _uninterrupted():
                stop(place, PRIVATE_STOP_S)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Neither a second Ctrl-C nor a second SIGTERM keeps what was started from being stopped."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(one, signal.SIG_IGN) for one in signals]
    try:
        yield
    finally:
        for one, handler in zip(signals, before, strict=True):
            signal.signal(one, handler)
