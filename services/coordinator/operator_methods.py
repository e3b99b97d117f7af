"""The methods for operators: garbage, and tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from dnd.clients import Services
from dnd.convert import enum_member, to_message
from dnd.errors import InvalidInput
from dnd.jobs import Garbage
from dnd.serving.inputs import check_count, check_range
from dnd.tokens import Role, Token, check_tenant
from dnd.v1 import coordinator_pb2 as pb2
from dnd_services.coordinator import garbage
from dnd_services.coordinator.answering import Answering, GrpcContext
from dnd_services.coordinator.judging import Watcher
from dnd_services.coordinator.long_runs import LongRuns
from dnd_services.coordinator.settings import CoordinatorSettings
from dnd_services.coordinator.store import Store, tokens

_YEAR_S = 365 * 24 * 3600
_ROLE = pb2.DESCRIPTOR.enum_types_by_name["Role"]


class OperatorMethods(Answering):
    """Answers operators."""

    def __init__(
        self,
        store: Store,
        services: Services,
        settings: CoordinatorSettings,
        nudge: Callable[[], None],
    ) -> None:
        super().__init__(store, services, settings, nudge)
        self._collections = LongRuns[Garbage]()

    def close(self) -> None:
        """Ends the threads."""
        super().close()
        self._collections.close()

    async def CollectGarbage(
        self, request: pb2.CollectGarbageRequest, context: GrpcContext
    ) -> AsyncIterator[pb2.CollectGarbageResponse]:
        grace_s, remove = request.grace_s, request.remove
        check_range("grace_s", grace_s, 0, _YEAR_S)

        def collect(watch: Watcher) -> Garbage:
            artifacts = self._services.artifacts
            labels_only = self._settings.keep_drawings == "labels"
            return garbage.collect(
                self._store, artifacts, grace_s, remove, watch, labels_only=labels_only
            )

        async for update in self._collections.follow((grace_s, remove), collect):
            if isinstance(update, Garbage):
                yield pb2.CollectGarbageResponse(garbage=to_message(update, pb2.Garbage))
            else:
                progress = pb2.GarbageProgress(step=update.step, num_done=update.num_done)
                yield pb2.CollectGarbageResponse(progress=progress)

    async def CreateToken(
        self, request: pb2.CreateTokenRequest, context: GrpcContext
    ) -> pb2.CreateTokenResponse:
        check_count("characters in its name", len(request.name.strip()), 1, 64)
        check_tenant(request.tenant)
        role = enum_member(request.role, _ROLE, Role)

        def create() -> pb2.CreateTokenResponse:
            token, secret = tokens.create_token(self._store, request.name, request.tenant, role)
            return pb2.CreateTokenResponse(token=_message(token), secret=secret)

        return await self._look(create)

    async def ListTokens(
        self, request: pb2.ListTokensRequest, context: GrpcContext
    ) -> pb2.ListTokensResponse:
        found = await self._read(tokens.list_tokens)
        return pb2.ListTokensResponse(tokens=map(_message, found))

    async def RevokeToken(
        self, request: pb2.RevokeTokenRequest, context: GrpcContext
    ) -> pb2.RevokeTokenResponse:
        if not request.token_id:
            raise InvalidInput("No token_id is given: `dnd tokens list` shows the ids.")
        token = await self._look(lambda: tokens.revoke_token(self._store, request.token_id))
        return pb2.RevokeTokenResponse(token=_message(token))


def _message(token: Token) -> pb2.Token:
    return to_message(token, pb2.Token)
