"""dnd tokens create, list, revoke."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from dnd.cli.connect import connected
from dnd.cli.console import print_table, say, warn
from dnd.cli.options import server_option
from dnd.tokens import Role


@click.group()
def tokens() -> None:
    """Say who may call a coordinator that takes tokens (DND_AUTH=tokens). For operators.

    Commands take the token of whoever calls them from DND_TOKEN, or from the file that
    DND_TOKEN_FILE names. A first one is that of the coordinator's setting admin_token_file.
    """


@tokens.command()
@click.argument("name")
@server_option
@click.option("--tenant", required=True, metavar="NAME", help="Whose jobs it is for.")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.SUBMIT.value,
    show_default=True,
    help="read: see jobs, labels and images; submit: create and change jobs too; admin: make "
    "tokens and collect garbage too.",
)
def create(name: str, server: str, home: Path, tenant: str, role: str) -> None:
    """Make a token and print its secret, which is kept nowhere.

    NAME says what the token is for.
    """
    with connected(server, home) as session:
        token, secret = session.client.create_token(name, tenant, Role(role))
    warn(f"Token {token.id} of tenant {token.tenant}, role {token.role.value}. Its secret:")
    click.echo(secret)


@tokens.command("list")
@server_option
def list_tokens(server: str, home: Path) -> None:
    """List the tokens, oldest first."""
    with connected(server, home) as session:
        found = session.client.list_tokens()
    if not found:
        say("There are no tokens yet.")
        return
    rows = [
        (one.id, one.name, one.tenant, one.role.value, _date(one.created_at_s))
        + ((_date(one.revoked_at_s),) if one.revoked_at_s else ("",))
        for one in found
    ]
    print_table(("Token", "Name", "Tenant", "Role", "Created", "Revoked"), rows, right=())


@tokens.command()
@click.argument("token")
@server_option
def revoke(token: str, server: str, home: Path) -> None:
    """Refuse a TOKEN from now on; it takes a few seconds."""
    with connected(server, home) as session:
        found = session.client.revoke_token(token)
    say(f"Token {found.id} ({found.name}) of tenant {found.tenant} is revoked.")


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
