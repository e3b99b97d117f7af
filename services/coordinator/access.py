"""Who may call what, on behalf of whom: the same for gRPC, REST and the pages.

With `DND_AUTH=tokens` every call carries a token, which stands for a tenant and a role. Without
(loopback only) a caller names its tenant itself, and may do everything.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from weakref import WeakValueDictionary

from google.protobuf.message import Message

from dnd.errors import BadSetting, Overloaded, PermissionDenied, Unauthenticated
from dnd.tokens import BEARER, Role, Token, hash_secret, read_secret
from dnd.v1 import coordinator_pb2 as pb2
from dnd_services.coordinator.answering import GrpcContext
from dnd_services.coordinator.settings import CoordinatorSettings
from dnd_services.coordinator.store import Store, tokens

log = logging.getLogger(__name__)

_READ = (
    *("ListTargets", "ListTargetLayers", "EstimateJob", "GetJob", "ListJobs", "WatchJob"),
    *("GetUnit", "ListLabels", "ExportLabels", "SearchLabels", "GetImages"),
)
_SUBMIT = (
    *("CreateConceptSet", "CreateJob", "PauseJob", "ResumeJob", "CancelJob", "RetryJob"),
    *("DeleteJob", "EvaluateJob", "TryImage", "TryWords"),
)
_ADMIN = ("CollectGarbage", "CreateToken", "ListTokens", "RevokeToken")
ROLES: dict[str, Role] = {
    **dict.fromkeys(_READ, Role.READ),
    **dict.fromkeys(_SUBMIT, Role.SUBMIT),
    **dict.fromkeys(_ADMIN, Role.ADMIN),
}
"""The role that each method of the API takes at least."""

SERVICE = pb2.DESCRIPTOR.services_by_name["CoordinatorService"]
KNOWN_FOR_S = 5.0
"""How long a token is taken as valid without a look at the record: revoking takes that long."""
MAX_GUESSES = 10
GUESSES_WITHIN_S = 60.0
_MAX_REMEMBERED = 10_000


@dataclass
class _Allowance:
    """Calls that a token may make now; it fills again with time."""

    num_calls: float
    at: float


class Gate:
    """Lets callers in, or raises.

    Args:
        clock: Seconds that go up.
    """

    def __init__(
        self,
        store: Store,
        settings: CoordinatorSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_open = settings.auth == "off"
        self._store = store
        self._rate = settings.calls_per_s
        self._clock = clock
        self._admin_hash = _read_admin_hash(settings.admin_token_file)
        self._known: OrderedDict[str, tuple[Token, float]] = OrderedDict()
        self._guesses: OrderedDict[str, list[float]] = OrderedDict()
        self._allowances: OrderedDict[str, _Allowance] = OrderedDict()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        if self.is_open:
            log.warning(
                "authentication is off: whoever reaches this address may do everything "
                "(DND_AUTH=tokens turns it on)"
            )

    async def admit(self, method: str, request: Message, authorization: str, peer: str) -> None:
        """Makes a request that of the caller's tenant.

        Args:
            method: Name of a method of the API.
            request: Its request, whose context is changed.
            authorization: What the caller has sent, "Bearer …".
            peer: Where the caller is; of one place only so many wrong tokens are looked at.

        Raises:
            Unauthenticated: No token, or one that is not valid.
            PermissionDenied: It has another role or tenant.
            Overloaded: Too many calls, or too many wrong tokens.
        """
        if self.is_open:
            return
        token = await self.identify(authorization, peer)
        self.count_call(token)
        check_role(token, method)
        context = request.context  # type: ignore[attr-defined]
        if context.tenant not in ("", token.tenant):
            raise PermissionDenied(
                f"The token is of tenant {token.tenant!r}, and the request names another one: "
                "leave the tenant out."
            )
        context.tenant = token.tenant

    async def identify(self, authorization: str, peer: str) -> Token:
        """The token behind what a caller has sent.

        Raises:
            Unauthenticated: There is none.
            Overloaded: Too many wrong ones came from there.
        """
        if not authorization:
            raise Unauthenticated(
                "This server takes tokens: send 'authorization: Bearer SECRET' (`dnd` takes it "
                "from DND_TOKEN)."
            )
        hashed = hash_secret(authorization.removeprefix(BEARER).strip())
        if (token := self._recall(hashed)) is not None:
            return token
        lock = self._locks.setdefault(peer, asyncio.Lock())
        async with lock:  # of one place one after the other, or many at once would all be looked at
            return self._recall(hashed) or await self._find(hashed, peer)

    def _recall(self, hashed: str) -> Token | None:
        """A token that was valid a moment ago."""
        known = self._known.get(hashed)
        return known[0] if known and self._clock() - known[1] < KNOWN_FOR_S else None

    async def _find(self, hashed: str, peer: str) -> Token:
        now = self._clock()
        if hashed not in self._known:  # whoever had a valid one is not locked out by a neighbour
            self._check_guesses(peer, now)
        token = await asyncio.to_thread(self._look_up, hashed)
        if token is None:
            self._known.pop(hashed, None)
            self._guesses.setdefault(peer, []).append(now)
            _bound(self._guesses)
            raise Unauthenticated("The token is not valid: it is wrong, or was revoked.")
        self._known[hashed] = (token, now)
        _bound(self._known)
        return token

    def _look_up(self, hashed: str) -> Token | None:
        if self._admin_hash and hmac.compare_digest(hashed, self._admin_hash):
            return Token("file", "admin token file", "default", Role.ADMIN, 0.0)
        with self._store.reading() as session:
            return tokens.find_token(session, hashed)

    def _check_guesses(self, peer: str, now: float) -> None:
        recent = [at for at in self._guesses.get(peer, []) if now - at < GUESSES_WITHIN_S]
        if len(recent) >= MAX_GUESSES:
            raise Overloaded(
                "Too many wrong tokens came from this address: wait a minute.",
                retry_after_s=GUESSES_WITHIN_S - (now - recent[0]),
            )
        if recent:
            self._guesses[peer] = recent
        else:
            self._guesses.pop(peer, None)

    def count_call(self, token: Token) -> None:
        """Takes one call from what the token may make: so many a second, twice that at once.

        Raises:
            Overloaded: None is left.
        """
        if not self._rate:
            return
        now = self._clock()
        left = self._allowances.setdefault(token.id, _Allowance(2 * self._rate, now))
        left.num_calls = min(left.num_calls + (now - left.at) * self._rate, 2 * self._rate)
        left.at = now
        if left.num_calls < 1:
            raise Overloaded(
                f"The token may make {self._rate:g} calls a second.",
                retry_after_s=(1 - left.num_calls) / self._rate,
            )
        left.num_calls -= 1
        self._allowances.move_to_end(token.id)
        _bound(self._allowances)


def check_role(token: Token, method: str) -> None:
    """Raises PermissionDenied unless the token's role may call the method."""
    needed = ROLES.get(method, Role.ADMIN)
    if not token.role.includes(needed):
        raise PermissionDenied(
            f"{method} takes a token of role {needed.value!r}; this one has {token.role.value!r}."
        )


def gated_servicer(servicer: Any, gate: Gate) -> Any:
    """The gRPC face of a servicer: every method, whatever its name, goes through the gate."""
    methods = {}
    for method in SERVICE.methods:
        wrap = _gated_stream if method.server_streaming else _gated
        methods[method.name] = wrap(gate, method.name, getattr(servicer, method.name))
    return SimpleNamespace(**methods)


def _gated(gate: Gate, method: str, answer: Any) -> Any:
    async def gated(request: Message, context: GrpcContext) -> Any:
        await gate.admit(method, request, *_caller(context))
        return await answer(request, context)

    return gated


def _gated_stream(gate: Gate, method: str, answer: Any) -> Any:
    async def gated(request: Message, context: GrpcContext) -> AsyncIterator[Any]:
        await gate.admit(method, request, *_caller(context))
        async for response in answer(request, context):
            yield response

    return gated


def _caller(context: GrpcContext) -> tuple[str, str]:
    """What a caller has sent to identify itself, and where it is."""
    assert context is not None
    sent = dict(context.invocation_metadata() or ())
    return str(sent.get("authorization", "")), context.peer().rpartition(":")[0]


def _read_admin_hash(path: str) -> str:
    if not path:
        return ""
    secret = read_secret(path, "DND_ADMIN_TOKEN_FILE")
    if len(secret) < 32:
        raise BadSetting(
            f"DND_ADMIN_TOKEN_FILE = {path!r}: expected a secret of at least 32 characters."
        )
    return hash_secret(secret)


def _bound(remembered: OrderedDict[str, Any]) -> None:
    while len(remembered) > _MAX_REMEMBERED:
        remembered.popitem(last=False)
