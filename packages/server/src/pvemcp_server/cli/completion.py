"""Names that a shell completes: of clusters, keys, roles, settings and tools."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import typer

from pvemcp_server.cli.state import State, open_state, require_state
from pvemcp_server.cli.state_dir import named
from pvemcp_server.config import Config
from pvemcp_server.errors import ServerError
from pvemcp_server.settings import declared_settings
from pvemcp_server.store.database import DatabaseFailed
from pvemcp_server.toolkit.registry import tools

Complete = Callable[..., list[str]]  # of the names that Typer gives, as far as it has them
_LISTS: Final[Mapping[str, Callable[[State], Any]]] = {
    "cluster": lambda state: state.access.clusters.all(),
    "key": lambda state: state.access.keys.all(),
    "role": lambda state: state.access.roles.all(),
}
_DECLARED: Final[Mapping[str, Callable[[], list[str]]]] = {
    "pairs": lambda: [f"{each.name}=" for each in declared_settings()],
    "tool": lambda: [*tools()],
}


def complete(kind: str) -> Complete | None:
    """Return the completion of an argument or option of this name, if it names such a thing.

    Typer finds the context and the text typed so far by the names of the parameters, `ctx` and
    `incomplete`.
    """
    if kind in _LISTS:
        return lambda ctx, incomplete: _matching(_names_for(kind, ctx), incomplete)
    if kind in _DECLARED:
        return lambda incomplete: _matching(_DECLARED[kind](), incomplete)
    return None


def _names_for(kind: str, ctx: typer.Context) -> list[str]:
    """List the names in the state of the command line: --state-dir may come anywhere before."""
    level: Any = ctx
    while level and not level.params.get("state_dir"):
        level = level.parent
    with named(Path(level.params["state_dir"]) if level else None):
        return asyncio.run(_names(kind))


def _matching(names: list[str], begun: str) -> list[str]:
    return [name for name in names if name.casefold().startswith(begun.casefold())]


async def _names(kind: str) -> list[str]:
    """List the names in the state; none where it cannot be read: a shell shows no error."""
    try:
        config = Config.load()
        require_state(config)
        async with open_state(config) as state:
            return [each.name for each in await _LISTS[kind](state)]
    except (ServerError, DatabaseFailed, OSError):
        return []
