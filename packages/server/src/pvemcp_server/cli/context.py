"""What administrative commands share: who acts, and how answers are told."""

import json
import os
import pwd
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

import typer
from pydantic import BaseModel, TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pvemcp_server.admin import AdminContext
from pvemcp_server.cli.state import opened
from pvemcp_server.errors import BadArgument
from pvemcp_server.pipeline.pipeline import Pipeline
from pvemcp_server.services import open_services
from pvemcp_server.toolkit.registry import tools
from pvemcp_server.tools import all as _declared  # noqa: F401 - importing it declares every tool

AsJson = Annotated[bool, typer.Option("--json", help="Answer as JSON.")]
PIPE_WIDTH = 240
_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


@asynccontextmanager
async def acting() -> AsyncIterator[AdminContext]:
    """The system's user as administrator; the audit names them."""
    async with opened() as state, open_services(state) as services:
        try:
            yield AdminContext(services, by=f"cli:{_system_user()}")
        except ValidationError as invalid:
            raise _readable(invalid) from None


def pipeline_of(by: AdminContext) -> Pipeline:
    """The way that every call takes, here without an endpoint in front of it."""
    services = by.services
    return Pipeline(tools(), services.clusters, services.settings, services.audit)


def tell(answer: Any, words: str, *, as_json: bool) -> None:
    """The answer as JSON, or the words that say it."""
    typer.echo(as_text(answer) if as_json else words)


def as_text(answer: Any) -> str:
    """Any answer of the administration as JSON."""
    return json.dumps(_ANYTHING.dump_python(answer, mode="json"), indent=2, ensure_ascii=False)


def tell_rows(rows: Sequence[Any], columns: Sequence[str], *, as_json: bool) -> None:
    """A list as JSON, or as a table of some of its columns."""
    if as_json:
        typer.echo(as_text(rows))
        return
    table = Table()
    for name in columns:
        # the first is what other commands ask for; nothing of the others is cut off either
        table.add_column(name, no_wrap=name == columns[0], overflow="fold")
    for row in rows:
        table.add_row(*(Text(_inert(_cell(getattr(row, name)))) for name in columns))
    # no terminal, no width to keep to: a pipe gets whole cells
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def changes(model: type[BaseModel], **given: Any) -> Any:
    """The model with what was given; options that were not used stay unset."""
    return model.model_validate({name: one for name, one in given.items() if one is not None})


def _readable(invalid: ValidationError) -> BadArgument:
    """The first wrong value by its name; the value itself may be a secret."""
    error = invalid.errors(include_url=False, include_input=False)[0]
    return BadArgument(".".join(str(part) for part in error["loc"]), error["msg"])


def _system_user() -> str:
    """By the system's word, for the environment may say anything; some users are only a number."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _inert(text: str) -> str:
    """A cell may hold what a stranger has sent, and terminals obey control characters."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(str(one) for one in value)
        case _ if hasattr(value, "isoformat"):
            return str(value.isoformat(timespec="seconds"))
        case _:
            return str(value)
