"""What is said at start: where the server is, how to connect, what is shown only once."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from pvemcp_server.access.names import check_name
from pvemcp_server.access.passwords import check_password
from pvemcp_server.access.roles import ADMINISTRATOR
from pvemcp_server.admin.client_setup import CLIENTS, Connection
from pvemcp_server.cli.state import State
from pvemcp_server.errors import BadArgument, ConfigError

FIRST_KEY = "first"
ADMIN_VARIABLES = {"name": "PVEMCP_ADMIN_USER", "password": "PVEMCP_ADMIN_PASSWORD"}


async def check_administrator(state: State) -> None:
    """Raise ConfigError when the first administrator is not there and cannot be made."""
    if await state.access.admins.all():
        return
    user, chosen = state.config.admin_user, state.config.admin_password
    with _named_by_variable():
        check_name(user)
        if chosen:
            check_password(chosen.get_secret_value(), user)


async def first_administrator(state: State) -> str | None:
    """Makes the first administrator where there is none; its password, when we made it up."""
    config = state.config
    chosen = config.admin_password.get_secret_value() if config.admin_password else None
    with _named_by_variable():
        password = await state.access.admins.first(config.admin_user, chosen)
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
    except BadArgument as wrong:
        variable = ADMIN_VARIABLES[wrong.argument]
        raise ConfigError(f"{variable}{wrong.message.removeprefix(wrong.argument)}") from None


async def tell_switch(state: State) -> None:
    """Says that clients will be refused, and what lets them in."""
    if not (await state.settings.current()).enabled:
        _console().print(
            f"The endpoint is off: `{this_command()} settings set enabled=true` turns it on, "
            "also while this server runs."
        )


async def greet(state: State, *, demo: bool) -> None:
    """Everything that a person needs for the first call, on one screen."""
    say = _console().print
    key = await _first_key(state) if demo else None
    if demo:
        await _tell_demo(state)
    connection = Connection(f"{state.config.base_url}/mcp", bridge=bridge_command())
    if key:
        connection = Connection(connection.url, key, connection.bridge)
        say(f"\nEndpoint with your new key (shown once): {connection.url_with_key}")
    else:
        say(f"\nEndpoint: {connection.url}/<your key>")
        say(f"Keys are shown once; `{this_command()} keys create NAME` makes another.")
    for client in ("claude-desktop", "claude-code"):
        kind = CLIENTS[client]
        say(f"\n{kind.title}: {kind.place}")
        say(kind.text(connection))
    say()
    if await first_administrator(state) is None:
        say(f"Admin pages: {state.config.base_url}/admin, user {state.config.admin_user}.")
    say("Stop with Ctrl-C; state and key are kept for the next run.")


async def _tell_demo(state: State) -> None:
    say = _console().print
    values = await state.settings.current()
    if not values.enabled:
        await state.settings.change({"enabled": True}, by="make run")
        say("The endpoint was turned on for the demo (setting Enabled).")
    identity = "'root@pam!pvemcp'"  # quoted: a shell takes what follows ! from its history
    names = " and ".join(one.name for one in await state.access.clusters.all())
    say(
        f"\n{names} are demo clusters: a Proxmox emulator on this machine, nothing real.\n"
        "Add a real one, and the demo goes away at the next start:\n"
        f"  {this_command()} clusters add NAME --host pve1.example --token-id {identity}"
        " --token-secret-file FILE --fingerprint SHA256"
    )


async def _first_key(state: State) -> str | None:
    """A key where there is none yet; on emulated clusters it may do everything."""
    if await state.access.keys.all():
        return None
    _, secret = await state.access.keys.create(FIRST_KEY, role=ADMINISTRATOR)
    return secret


def bridge_command() -> str:
    """The bridge installed beside us, else the one that is found on the path."""
    beside = Path(sys.executable).with_name("pvemcp-bridge")
    return str(beside) if beside.exists() else shutil.which("pvemcp-bridge") or "pvemcp-bridge"


def this_command() -> str:
    """The command as a shell here finds it: an environment's own is on no path."""
    return "pvemcp" if shutil.which("pvemcp") else sys.argv[0]


def _console() -> Console:
    """Says everything as it is: an IPv6 address would be markup."""
    return Console(soft_wrap=True, markup=False, highlight=False)
