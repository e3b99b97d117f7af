"""Tokens in the record: made, listed, revoked, and found by what is sent."""

from __future__ import annotations

import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from dnd.errors import NotFound
from dnd.tokens import Role, Token, hash_secret, make_secret
from dnd_services.coordinator.models import TokenRow
from dnd_services.coordinator.store.engine import Store


def create_token(store: Store, name: str, tenant: str, role: Role) -> tuple[Token, str]:
    """Makes a token; it and its secret, which is not kept."""
    secret = make_secret()
    with store.writing() as session:
        row = TokenRow(
            id=secrets.token_hex(8),
            secret_hash=hash_secret(secret),
            name=name,
            tenant=tenant,
            role=role.value,
            created_at=store.now(session),
            revoked_at=0.0,
        )
        session.add(row)
    return _token(row), secret


def list_tokens(session: Session) -> list[Token]:
    """All tokens, oldest first."""
    return [_token(row) for row in session.scalars(select(TokenRow).order_by(TokenRow.created_at))]


def revoke_token(store: Store, token_id: str) -> Token:
    """Makes a token invalid; one that is so already stays as it was.

    Raises:
        NotFound: There is no such token.
    """
    with store.writing() as session:
        row = session.get(TokenRow, token_id)
        if row is None:
            raise NotFound(f"There is no token {token_id[:40]!r}: `dnd tokens list` shows the ids.")
        row.revoked_at = row.revoked_at or store.now(session)
    return _token(row)


def find_token(session: Session, secret_hash: str) -> Token | None:
    """The valid token whose secret has this hash."""
    row = session.scalars(
        select(TokenRow).where(TokenRow.secret_hash == secret_hash, TokenRow.revoked_at == 0)
    ).one_or_none()
    return _token(row) if row else None


def _token(row: TokenRow) -> Token:
    return Token(row.id, row.name, row.tenant, Role(row.role), row.created_at, row.revoked_at)
