"""The messages of a start: the server's address, how to connect, and secrets shown once."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from pvemcp_bridge.config_file import bridge_command
from pvemcp_server.access.names import check_name
from pvemcp_server.access.passwords import check_password
from pvemcp_server.access.roles import ADMINISTRATOR
from pvemcp_server.admin.client_setup import (
    CLIENTS,
    KEY_PLACEHOLDER,
    Connection,
    endpoint_url,
)
from pvemcp_server.cli.state import State, record_change
from pvemcp_server.errors import BadArgument, ConfigError
from pvemcp_server.store.records import AdminRole, ClusterKind

FIRST_KEY = "first"
ADMIN_VARIABLES = {"name": "PVEMCP_ADMIN_USER", "password": "PVEMCP_ADMIN_PASSWORD"}


async def check_administrator(state: State) -> None:
    """Raise ConfigError if there is no administrator yet and the configured one is not valid."""
    if await state.access.admins.all():
        return
    user, password = state.config.admin_user, state.config.admin_password
    with _named_by_variable():
        check_name(user)
        if password:
            check_password(password.get_secret_value(), user)


async def create_first_administrator(state: State) -> str | None:
    """Create an administrator if there is none; print and return a generated password."""
    config = state.config
    configured = config.admin_password.get_secret_value() if config.admin_password else None
    with _named_by_variable():
        is_new, password = await state.access.admins.first(config.admin_user, configured)
    if is_new:
        await record_change(state, "admins.add", name=config.admin_user, role=AdminRole.OWNER)
    if password:
        _console().print(
            f"Admin pages: {config.base_url}/admin, "
            f"user {config.admin_user}, one-time password {password} (shown once)."
        )
    return password


@contextmanager
def _named_by_variable() -> Iterator[None]:
    try:
        yield
    except BadArgument as error:
        variable = ADMIN_VARIABLES[error.argument]
        raise ConfigError(f"{variable}{error.message.removeprefix(error.argument)}") from None


async def print_endpoint_off(state: State) -> None:
    """Print how to turn on the endpoint while it is off and refuses all clients."""
    if not (await state.settings.current()).enabled:
        _console().print(
            f"The endpoint is off: `{this_command()} settings set enabled=true` turns it on, "
            "also while this server runs."
        )


async def print_welcome(state: State, *, demo: bool) -> None:
    """Print everything that a user needs for the first call, on one screen."""
    show = _console().print
    key = await _first_key(state) if demo else None
    if demo:
        await _print_demo(state)
    url = endpoint_url(state.config)
    connection = Connection(url, key or KEY_PLACEHOLDER, command=bridge_command())
    if key:
        show(f"\nEndpoint with your new key (shown once): {connection.url_with_key}")
    else:
        show(f"\nEndpoint: {connection.url}/<your key>")
        show(f"Keys are shown once; `{this_command()} keys create NAME` makes another.")
    for client in ("claude-desktop", "claude-code"):
        kind = CLIENTS[client]
        show(f"\n{kind.title}: {kind.place}")
        show(kind.text(connection, bridged=False).rstrip())
    show()
    if await create_first_administrator(state) is None:
        show(f"Admin pages: {state.config.base_url}/admin, user {state.config.admin_user}.")
    show("Stop with Ctrl-C; state and key are kept for the next run.")


async def _print_demo(state: State) -> None:
    show = _console().print
    values = await state.settings.current()
    if not values.enabled:
        await state.settings.change({"enabled": True}, by="make run")
        await record_change(state, "settings.change", enabled=True)
        show("The endpoint was turned on for the demo (setting Enabled).")
    identity = "'root@pam!pvemcp'"  # quoted: shells expand ! from their history
    every = await state.access.clusters.all()
    names = " and ".join(each.name for each in every if each.kind is ClusterKind.PVE)
    servers = " and ".join(each.name for each in every if each.kind is ClusterKind.PBS)
    show(
        f"\n{names} are demo clusters: a Proxmox emulator on this machine, nothing real.\n"
        f"It also emulates a Proxmox Backup Server: {servers}.\n"
        "Add a real one, and the demo goes away at the next start:\n"
        f"  {this_command()} clusters add NAME --host pve1.example --token-id {identity}"
        " --token-secret-file FILE --fingerprint SHA256"
    )


async def _first_key(state: State) -> str | None:
    """Create a key if there is none; on emulated clusters it has all rights."""
    if await state.access.keys.all():
        return None
    key, secret = await state.access.keys.create(FIRST_KEY, role=ADMINISTRATOR)
    await record_change(state, "keys.create", key=key.id, name=FIRST_KEY, role=ADMINISTRATOR)
    return secret


def this_command() -> str:
    """Return this command as a shell finds it: in a virtual environment it is on no path."""
    return "pvemcp" if shutil.which("pvemcp") else sys.argv[0]


def _console() -> Console:
    """Return a console that prints text unchanged: rich would read an IPv6 address as markup."""
    return Console(soft_wrap=True, markup=False, highlight=False)
