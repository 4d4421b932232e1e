"""The state that commands open, and async functions as commands."""

import asyncio
import errno
import functools
import inspect
import os
import pwd
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer
from sqlalchemy import make_url

from pvemcp_server.access import Access, ExternalAdmins, open_access
from pvemcp_server.audit import Audit, Event, Outcome
from pvemcp_server.cli.state_dir import VARIABLE, StateDir, named
from pvemcp_server.cli.terminal import print_error
from pvemcp_server.config import Config
from pvemcp_server.errors import BadArgument, ConfigError, ServerError
from pvemcp_server.settings import Settings
from pvemcp_server.store import Store, open_store
from pvemcp_server.store.database import DatabaseFailed, reason_of

_STATE_DIR: Final = inspect.Parameter(
    "state_dir", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=StateDir
)
"""The option of every command."""
_NAMES: Final = frozenset({"cluster", "identity", "key", "name", "tool"})


@dataclass(frozen=True)
class State:
    """The open state: configuration, database and the services on it."""

    config: Config
    store: Store
    access: Access
    settings: Settings


@asynccontextmanager
async def open_state(config: Config | None = None) -> AsyncIterator[State]:
    """Open the state that the environment names, and migrate it to this version."""
    config = config or Config.load()
    external = ExternalAdmins.configured(config)
    async with open_store(config) as store, open_access(store, external) as access:
        yield State(config, store, access, Settings(store))


def place_of(config: Config) -> str:
    """Return the state folder and, where the database is elsewhere, its URL without a password."""
    folder = str(config.state_dir.absolute())
    if config.database_url is None:
        return folder
    return f"{folder}, database {make_url(config.database).render_as_string()}"


def require_state(config: Config) -> None:
    """Raise ConfigError where there is no state yet: what a command would show is not the answer.

    A database that is named by its URL is taken as it is.
    """
    if config.database_url is None and not config.database_file.exists():
        raise ConfigError(
            f"There is no state in {place_of(config)}. The first start of the server makes it; "
            f"name another folder with --state-dir or {VARIABLE}."
        )


async def record_change(
    state: State, action: str, *, cluster: str | None = None, **details: Any
) -> None:
    """Record a change that a start makes, which runs no administrative operation.

    `action` is the name of the operation that changes the same.
    """
    event = Event(
        tool=f"admin.{action}",
        key_name=command_line_name(),
        cluster=cluster,
        arguments=details,
        outcome=Outcome.OK,
    )
    await Audit(state.store).admin(event)


def command_line_name() -> str:
    """Return the name that the audit shows for a command: `cli:` and the system's user.

    It comes from the system, because environment variables can hold any text. In a container a user
    may have no name, only a number.
    """
    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"cli:{os.getuid()}"


def command(run: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Return an async function as a command: an error is one line and exit code 1.

    The command has the option --state-dir, which wins over the same option before the command.
    """

    @functools.wraps(run)
    def entry(*args: Any, state_dir: Path | None = None, **kwargs: Any) -> None:
        with _errors_in_one_line(), named(state_dir):
            _refuse_empty_names(kwargs, optional)
            asyncio.run(_awaited(run(*args, **kwargs)))

    signature = inspect.signature(run, eval_str=True)
    optional = [name for name, each in signature.parameters.items() if each.default is None]
    parameters = [*signature.parameters.values(), _STATE_DIR]
    entry.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # functions have it
    entry.__annotations__ = {each.name: each.annotation for each in parameters}
    return entry


def _refuse_empty_names(values: Mapping[str, Any], optional: Sequence[str]) -> None:
    """Raise BadArgument for an empty name, which is a variable that a script has not set.

    It does not mean that the option is absent: `--key ""` would act as Administrator.
    """
    for name in optional:
        if name in _NAMES and values[name] == "":
            raise BadArgument(name, "is empty; name one, or leave it out.")


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except ServerError as error:
        print_error(str(error))
        raise typer.Exit(1) from None
    except DatabaseFailed as error:
        print_error(f"The state's database failed: {reason_of(error)}.")
        raise typer.Exit(1) from None
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader of a pipe has gone: Typer ends quietly
            raise
        print_error(f"{error.strerror or error}: {error.filename or 'the output'}.")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        sys.exit(130)


async def _awaited(work: Awaitable[None]) -> None:
    await work
