"""The messages of a start: the server's address, how to connect, and secrets shown once."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from pvemcp_server import __version__
from pvemcp_server.access.names import check_name
from pvemcp_server.access.passwords import check_password
from pvemcp_server.access.roles import ADMINISTRATOR
from pvemcp_server.admin.client_setup import CLIENTS, KEY_PLACEHOLDER, Connection, endpoint_url
from pvemcp_server.cli.state import State, place_of, record_change
from pvemcp_server.errors import BadArgument, ConfigError
from pvemcp_server.program_name import this_command
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
    """Create an administrator if there is none; return a generated password."""
    config = state.config
    configured = config.admin_password.get_secret_value() if config.admin_password else None
    with _named_by_variable():
        is_new, password = await state.access.admins.first(config.admin_user, configured)
    if is_new:
        await record_change(state, "admins.add", name=config.admin_user, role=AdminRole.OWNER)
    return password


@contextmanager
def _named_by_variable() -> Iterator[None]:
    try:
        yield
    except BadArgument as error:
        variable = ADMIN_VARIABLES[error.argument]
        raise ConfigError(f"{variable}{error.message.removeprefix(error.argument)}") from None


async def print_welcome(state: State, *, demo: bool) -> None:
    """Print the page to open, the endpoint and the next step, on one screen without scrolling.

    A key and a generated password are shown here and nowhere else.
    """
    show = _console().print
    password = await create_first_administrator(state)
    key = await _first_key(state) if demo else None
    connection = Connection(endpoint_url(state.config), key or KEY_PLACEHOLDER)
    show(f"\npvemcp {__version__}, the AI server for Proxmox VE\n")
    show(f"Admin pages:   {state.config.base_url}/admin{await _user(state, password)}")
    show(f"MCP endpoint:  {connection.url_with_key}", end="")
    show(" (new key, shown once)" if key else f" (another key: {this_command()} keys create NAME)")
    show(f"State:         {place_of(state.config)}\n")
    show(
        f"Claude Code:   {CLIENTS['claude-code'].command_line(connection)}\n"
        "Other clients: API Access on the admin pages shows the configuration of each.\n"
    )
    for fact in await (_demo_facts(state) if demo else _facts(state)):
        show(fact)
    show("\nStop with Ctrl-C; state and keys are kept for the next start.")


async def _user(state: State, password: str | None) -> str:
    """Return who may sign in with a password, an owner first; nothing if all are external."""
    admins = state.access.admins
    local = [
        (admins.role(each) is not AdminRole.OWNER, each.name)
        for each in await admins.all()
        if each.subject is None and admins.can_sign_in(each)
    ]
    if not local:
        return ""
    _, name = min(local)
    if password:
        return f", user {name}, one-time password {password} (shown once)"
    return f", user {name} (lost password: {this_command()} admin reset-password {name})"


async def _facts(state: State) -> list[str]:
    """Return what is left to do: a cluster to add, an endpoint to turn on."""
    names = ", ".join(each.name for each in await state.access.clusters.all())
    facts = [f"Clusters: {names}" if names else f"No cluster yet: {this_command()} clusters add"]
    if not (await state.settings.current()).enabled:
        facts.append(
            f"The endpoint is off: `{this_command()} settings set enabled=true` turns it on, "
            "also while this server runs."
        )
    return facts


async def _demo_facts(state: State) -> list[str]:
    every = await state.access.clusters.all()
    names = " and ".join(each.name for each in every if each.kind is ClusterKind.PVE)
    servers = " and ".join(each.name for each in every if each.kind is ClusterKind.PBS)
    facts = [f"Demo: {names} are emulated clusters, {servers} an emulated backup server."]
    if not (await state.settings.current()).enabled:
        await state.settings.change({"enabled": True}, by="make run")
        await record_change(state, "settings.change", enabled=True)
        facts.append("The endpoint was turned on for the demo (setting Enabled).")
    return [
        *facts,
        f"Your own cluster: {this_command()} clusters add",
        "It asks for what it needs; the demo goes away at the next start.",
    ]


async def _first_key(state: State) -> str | None:
    """Create a key if there is none; on emulated clusters it has all rights."""
    if await state.access.keys.all():
        return None
    key, secret = await state.access.keys.create(FIRST_KEY, role=ADMINISTRATOR)
    await record_change(state, "keys.create", key=key.id, name=FIRST_KEY, role=ADMINISTRATOR)
    return secret


def _console() -> Console:
    """Return a console that prints text unchanged: rich would read an IPv6 address as markup."""
    return Console(soft_wrap=True, markup=False, highlight=False)
