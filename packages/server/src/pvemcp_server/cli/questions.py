"""What `pvemcp clusters add` asks at a terminal, for options that were not given."""

import re
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import typer
from pydantic import SecretStr

from pvemcp_server.access.clusters import checked, checked_token_id
from pvemcp_server.access.fields import validated
from pvemcp_server.access.roles import READ_ONLY
from pvemcp_server.admin import clusters
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.proxmox_accounts import removal
from pvemcp_server.cli.terminal import one_line
from pvemcp_server.clusters.checks import CERTIFICATE_COMMANDS
from pvemcp_server.errors import BadArgument, CallError, ConfigError
from pvemcp_server.store.records import ClusterKind, TlsMode

T = TypeVar("T")


def can_ask() -> bool:
    """Return whether a user is there to answer."""
    return sys.stdin.isatty()


def ask(option: str, question: str, **options: Any) -> str:
    """Return the answer to a question; raise BadArgument for the option without a terminal."""
    if not can_ask():
        raise BadArgument(option, "is needed; at a terminal the command asks for it.")
    with _interruptible():
        return str(typer.prompt(question, err=True, **options)).strip()


async def until_accepted(question: Callable[[], Awaitable[T]]) -> T:
    """Ask again while the answer is refused: a wrong one costs one line, not the answers before.

    Without a terminal the first refusal is raised.
    """
    while True:
        try:
            return await question()
        except CallError as refused:
            if not can_ask():
                raise
            typer.secho(one_line(str(refused)), fg="red", err=True)


async def ask_name(context: AdminContext) -> str:
    """Return a name for a new cluster that no other one has."""
    name = ask("name", "Name of the cluster here, as home-lab")
    await context.services.access.clusters.check_new_name(name)
    return name


async def ask_hosts() -> list[str]:
    """Return the hosts, typed with spaces or commas between them."""
    typed = ask("--host", "Its hosts, as pve1.example pve2.example")
    hosts: list[str] = checked({"hosts": re.split(r"[\s,;]+", typed)})["hosts"]
    return hosts


async def ask_certificates(
    context: AdminContext, hosts: Sequence[str], kind: ClusterKind
) -> tuple[TlsMode, list[str]]:
    """Show each host's certificate, and return how to check them: by authority or by pin.

    Raise CallError where no host answers. Without a terminal only certificates of the system's
    authorities are trusted.
    """
    if not can_ask():
        return TlsMode.SYSTEM, []
    shown = await clusters.fingerprints(context, list(hosts), kind)
    answering = [each for each in shown if each.fingerprint]
    for each in shown:
        state = "signed by a known authority" if each.trusted else each.fingerprint
        # the trouble names the host itself
        typer.echo(one_line(f"  {each.host}  {state}" if state else f"  {each.trouble}"), err=True)
    if not answering:
        raise CallError("No host answers: check names, ports and the firewall in between.")
    if all(each.trusted for each in answering):
        return TlsMode.SYSTEM, []
    typer.echo(
        f"Compare each fingerprint with `{CERTIFICATE_COMMANDS[kind]}` on its node.", err=True
    )
    with _interruptible():
        if not typer.confirm("Are they the same, and are they to be pinned?", err=True):
            again = " ".join(f"--host {host}" for host in hosts)
            raise ConfigError(
                "Nothing was saved: the certificates are not trusted. Start again with "
                f"`clusters add {again}` when you have compared them, or name the authority that "
                "signed them with --ca-file."
            )
    return TlsMode.PINNED, [each.fingerprint for each in answering]


@dataclass(frozen=True)
class Token:
    """An API token; `removal` is the command that removes the account that was made with it."""

    id: str
    secret: SecretStr
    removal: str = ""


def ask_secret() -> SecretStr:
    """Return the secret of a token."""
    return SecretStr(ask("--token-secret-file", "Its secret", hide_input=True))


async def ask_token(
    context: AdminContext, connection: Mapping[str, Any], made: Token | None, *, may_make: bool
) -> Token:
    """Return a token: an existing one, one of a new account, or the one that was `made` before.

    An account is made where the certificate is pinned, or the system's: a password is sent.
    """
    is_checked = connection["tls_mode"] in (TlsMode.PINNED, TlsMode.SYSTEM)
    can_make = may_make and can_ask() and connection["kind"] is ClusterKind.PVE and is_checked
    question = "API token, as user@realm!name"
    default: dict[str, Any] = {}
    if made:
        default = {"default": made.id}
    elif can_make:
        question += "; empty makes an account and a token"
        default = {"default": "", "show_default": False}
    token_id = ask("--token-id", question, **default)
    if made and token_id == made.id:
        return made
    if token_id:
        checked_token_id(token_id)
        return Token(token_id, ask_secret())
    return await _new_token(context, connection)


async def _new_token(context: AdminContext, connection: Mapping[str, Any]) -> Token:
    """Let an administrator of Proxmox make an account, and show what it may do."""
    role = await until_accepted(lambda: _ask_role(context))
    connection = {name: connection[name] for name in ("hosts", "fingerprints")} | {"role": role}
    account = await until_accepted(lambda: _make_account(context, connection))
    user = account.token_id.partition("!")[0]
    made = f"Made {user} with the role {account.proxmox_role}: {', '.join(account.privileges)}."
    typer.echo(one_line(made), err=True)
    if account.withheld:
        withheld = (
            f"Not given, because they allow writes too: {', '.join(account.withheld)}. Lists that "
            "need them, as of backups, say that they are incomplete."
        )
        typer.echo(one_line(withheld), err=True)
    undo = removal(account.proxmox_role, user)
    return Token(account.token_id, SecretStr(account.token_secret), undo)


async def _ask_role(context: AdminContext) -> str:
    roles = context.services.access.roles
    names = ", ".join(sorted(role.name for role in await roles.all()))
    question = f"Role of this server that the account is for ({names})"
    return (await roles.get(ask("--token-id", question, default=READ_ONLY))).name


async def _make_account(context: AdminContext, connection: dict[str, Any]) -> clusters.Account:
    """Ask for an administrator of Proxmox, and let them make the account."""
    user = ask("--token-id", "Proxmox user who may make it", default="root@pam")
    if "@" not in user:  # before the password is typed
        raise BadArgument("user", "must have the form user@realm, for example root@pam.")
    code = {"default": "", "show_default": False}
    sign_in = {
        "user": user,
        "password": ask("--token-id", f"Password of {user}; it is not stored", hide_input=True),
        "code": ask("--token-id", "Code of the second factor, if any", **code) or None,
    }
    fields = validated(clusters.AccountFields, {**connection, **sign_in})
    return await clusters.make_account(context, fields)


@contextmanager
def _interruptible() -> Iterator[None]:
    """End a question at Ctrl-C: asyncio's handler only cancels the task, which waits for a line."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
