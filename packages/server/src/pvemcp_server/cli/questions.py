"""What `pvemcp clusters add` asks at a terminal, for options that were not given."""

import sys
from collections.abc import Sequence
from typing import Any

import typer
from pydantic import SecretStr

from pvemcp_server.access.roles import READ_ONLY
from pvemcp_server.admin import clusters
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.cli.terminal import one_line
from pvemcp_server.errors import BadArgument, ConfigError
from pvemcp_server.store.records import ClusterKind, TlsMode


def can_ask() -> bool:
    """Return whether a user is there to answer."""
    return sys.stdin.isatty()


def ask(option: str, question: str, **options: Any) -> str:
    """Return the answer to a question; raise BadArgument for the option without a terminal."""
    if not can_ask():
        raise BadArgument(option, "is needed; at a terminal the command asks for it.")
    return str(typer.prompt(question, err=True, **options)).strip()


async def ask_certificates(
    context: AdminContext, hosts: Sequence[str], kind: ClusterKind
) -> tuple[TlsMode, list[str]]:
    """Show each host's certificate, and return how to check them: by authority or by pin.

    Without a terminal only certificates of the system's authorities are trusted.
    """
    if not can_ask():
        return TlsMode.SYSTEM, []
    shown = await clusters.fingerprints(context, list(hosts), kind)
    answering = [each for each in shown if each.fingerprint]
    for each in shown:
        state = "signed by a known authority" if each.trusted else each.fingerprint
        typer.echo(one_line(f"  {each.host}  {state or each.trouble}"), err=True)
    if not answering:
        raise ConfigError("No host answers: check names, ports and the firewall in between.")
    if all(each.trusted for each in answering):
        return TlsMode.SYSTEM, []
    typer.echo("Compare each fingerprint with `pvenode cert info` on its node.", err=True)
    if not typer.confirm("Are they the same, and are they to be pinned?", err=True):
        raise ConfigError("Nothing was saved: the certificates are not trusted.")
    return TlsMode.PINNED, [each.fingerprint for each in answering]


async def ask_token(
    context: AdminContext, hosts: Sequence[str], fingerprints: Sequence[str], kind: ClusterKind
) -> tuple[str, SecretStr]:
    """Return a token id with its secret: an existing one, or one of a new account."""
    is_pve = kind is ClusterKind.PVE and can_ask()
    made = "; empty makes an account and a token" if is_pve else ""
    default = {"default": "", "show_default": False} if is_pve else {}
    token_id = ask("--token-id", f"API token, as user@realm!name{made}", **default)
    if token_id:
        return token_id, SecretStr(ask("--token-secret-file", "Its secret", hide_input=True))
    user = ask("--token-id", "Proxmox user who may make it", default="root@pam")
    fields = {
        "hosts": list(hosts),
        "fingerprints": list(fingerprints),
        "user": user,
        "password": ask("--token-id", f"Password of {user}; it is not stored", hide_input=True),
        "code": ask(
            "--token-id", "Code of the second factor, if any", default="", show_default=False
        )
        or None,
        "role": ask("--token-id", "Role of this server that it is for", default=READ_ONLY),
    }
    account = await clusters.make_account(context, clusters.AccountFields.model_validate(fields))
    user = account.token_id.partition("!")[0]
    typer.echo(
        f"Made {user} with the role {account.proxmox_role}: {', '.join(account.privileges)}.",
        err=True,
    )
    if account.withheld:
        typer.echo(
            f"Not given, because they allow writes too: {', '.join(account.withheld)}. Lists that "
            "need them, as of backups, say that they are incomplete.",
            err=True,
        )
    return account.token_id, SecretStr(account.token_secret)
