"""Tokens: who may call a coordinator, on behalf of which tenant, and to do what."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from dnd import logs
from dnd.errors import BadSetting, InvalidInput

BEARER = "Bearer "
_PREFIX = "dnd_"
_TENANT = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Role(Enum):
    """What the owner of a token may do; each may do what those before it may."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Whether it may do what `other` may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True)
class Token:
    """A token without its secret.

    Attributes:
        name: What it is for.
        created_at_s: Seconds since 1970.
        revoked_at_s: Seconds since 1970; 0 while it is valid.
    """

    id: str
    name: str
    tenant: str
    role: Role
    created_at_s: float
    revoked_at_s: float = 0.0


def make_secret() -> str:
    """A new secret: 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    """What is kept of a secret. It is random and long, so that one round of SHA-256 is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()


def check_tenant(tenant: str) -> None:
    """Raises InvalidInput for a name that no tenant can have."""
    if not _TENANT.fullmatch(tenant):
        raise InvalidInput(
            f"tenant = {tenant[:70]!r}: expected 1 to 64 letters, digits, '.', '_' and '-'."
        )


def read_secret(path: str, variable: str) -> str:
    """The secret in a file.

    Raises:
        BadSetting: It cannot be read; `variable` is what names it.
    """
    try:
        secret = Path(path).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"{variable} = {path!r} cannot be read: {error}.") from None
    logs.hide(secret)
    return secret


def secret_of_environment(environ: Mapping[str, str]) -> str:
    """The secret that DND_TOKEN has, or the file that DND_TOKEN_FILE names; empty for none.

    Raises:
        BadSetting: The file cannot be read.
    """
    if path := environ.get("DND_TOKEN_FILE", ""):
        return read_secret(path, "DND_TOKEN_FILE")
    return environ.get("DND_TOKEN", "").strip()
