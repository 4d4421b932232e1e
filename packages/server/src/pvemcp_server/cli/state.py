"""The state that commands open, and async functions as commands."""

import asyncio
import errno
import functools
import os
import pwd
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec

import typer

from pvemcp_server.access import Access, ExternalAdmins, open_access
from pvemcp_server.audit import Audit, Event, Outcome
from pvemcp_server.cli.terminal import printable
from pvemcp_server.config import Config
from pvemcp_server.errors import ServerError
from pvemcp_server.settings import Settings
from pvemcp_server.store import Store, open_store
from pvemcp_server.store.database import DatabaseFailed, reason_of

P = ParamSpec("P")


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


def command(run: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Return an async function as a command: an error is one line and exit code 1."""

    @functools.wraps(run)
    def entry(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            asyncio.run(_awaited(run(*args, **kwargs)))
        except ServerError as error:
            _print_error(str(error))
            raise typer.Exit(1) from None
        except DatabaseFailed as error:
            _print_error(f"The state's database failed: {reason_of(error)}.")
            raise typer.Exit(1) from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of a pipe has gone: Typer ends quietly
                raise
            _print_error(f"{error.strerror or error}: {error.filename or 'the output'}.")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            sys.exit(130)

    return entry


def _print_error(text: str) -> None:
    typer.secho(printable(text), fg="red", err=True)


async def _awaited(work: Awaitable[None]) -> None:
    await work
