"""The administrator of a command, and how answers are printed."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, TypeAdapter, ValidationError
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pvemcp_server.access.fields import bad_argument
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.permission import COMMAND_LINE
from pvemcp_server.cli.state import command_line_name, open_state, place_of, require_state
from pvemcp_server.cli.terminal import is_shown, one_line, printable
from pvemcp_server.config import Config
from pvemcp_server.pipeline.pipeline import Pipeline
from pvemcp_server.services import open_services
from pvemcp_server.toolkit.registry import tools
from pvemcp_server.tools import all as _declared  # noqa: F401 - importing it declares every tool

AsJson = Annotated[bool, typer.Option("--json", help="Answer as JSON.")]
PIPE_WIDTH = 240
SHORT = 24  # characters of a cell that is never wrapped: a time has 23
LONG = 40  # characters of a line of text, enough to be read
GAP = 3  # between two columns
Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")
_ANY_TYPE: TypeAdapter[Any] = TypeAdapter(Any)


@asynccontextmanager
async def administrator(*, writes: bool = True) -> AsyncIterator[AdminContext]:
    """Open the state for the system's user as administrator; the audit records their name.

    A command that writes prints on standard error where the state is; one that reads raises
    ConfigError where there is none. Values that a model refuses inside the block raise BadArgument.
    """
    config = Config.load()
    if not writes:
        require_state(config)
    async with open_state(config) as state, open_services(state) as services:
        try:
            yield AdminContext(services, by=command_line_name(), authority=COMMAND_LINE)
        except ValidationError as invalid:
            raise bad_argument(invalid) from None
    if writes:
        typer.secho(one_line(f"State: {place_of(config)}"), dim=True, err=True)


def pipeline_of(context: AdminContext) -> Pipeline:
    """Return the pipeline that runs every tool call, here without an HTTP server."""
    return Pipeline.of(context.services, tools())


def to_json(answer: Any) -> str:
    """Return any answer of the administration as JSON; what is not printable is escaped."""
    text = json.dumps(_ANY_TYPE.dump_python(answer, mode="json"), indent=2, ensure_ascii=False)
    return "".join(map(_escaped, text))


def print_answer(answer: Any, text: str, *, as_json: bool) -> None:
    """Print the answer as JSON, or the text that describes it."""
    typer.echo(to_json(answer) if as_json else printable(text))


async def as_they_come(
    pending: Sequence[Coroutine[Any, Any, T]], show: Callable[[T], None] | None
) -> list[T]:
    """Await all results, show each as soon as it is there, and return them in their own order."""
    tasks = [asyncio.create_task(each) for each in pending]
    for task in asyncio.as_completed(tasks):
        result = await task
        if show is not None:
            show(result)
    return [task.result() for task in tasks]


def print_table(rows: Sequence[Any], columns: Sequence[tuple[str, Callable[[Any], str]]]) -> None:
    """Print some columns of rows, each by its name in words and the text of its value.

    Columns without any value are left out. At a terminal, so are the last ones, as far as the
    others have no room otherwise; they are named on standard error.
    """
    cells = {
        name: [printable(text(getattr(row, name)).replace("\n", "�")) for row in rows]
        for name, text in columns
    }
    first = next(iter(cells))
    filled = [name for name in cells if name == first or any(cells[name])] if rows else [*cells]
    # a pipe has no width: give it whole cells
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    shown = _fitting({name: cells[name] for name in filled}, console.width)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in shown:
        # the first column holds what other commands need: it is never wrapped, and no cell is cut
        is_short = name == first or _width(name, cells[name]) <= SHORT
        table.add_column(_words(name), no_wrap=is_short, overflow="fold")
    for texts in zip(*(cells[name] for name in shown), strict=True):
        table.add_row(*map(Text, texts))
    console.print(table)
    if hidden := ", ".join(map(_words, filled[len(shown) :])):
        typer.secho(f"Not shown for lack of room: {hidden}. --json has them.", dim=True, err=True)


def _fitting(cells: Mapping[str, Sequence[str]], width: int) -> list[str]:
    """Return the first columns that fit into this width, a long text in two lines or in LONG."""
    shown: list[str] = []
    for name, texts in cells.items():
        whole = _width(name, texts)
        least = max(SHORT, min(LONG, -(-whole // 2))) if shown else whole
        width -= min(whole, least)
        if shown and width < 0:
            break
        shown.append(name)
        width -= GAP
    return shown


def _width(name: str, texts: Sequence[str]) -> int:
    return max(cell_len(text) for text in (_words(name), *texts))


def _words(name: str) -> str:
    return name.replace("_", " ")


def cell_text(value: Any) -> str:
    """Return a value as the text of a table cell; a time is local, with its zone."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(str(item) for item in value)
        case datetime():
            return f"{value.astimezone():%Y-%m-%d %H:%M:%S %Z}"
        case _:
            return str(value)


def from_options(model: type[Model], **options: Any) -> Model:
    """Return the model with the options that were used; the others stay unset."""
    return model.model_validate({k: value for k, value in options.items() if value is not None})


def _escaped(letter: str) -> str:
    """Return a letter of a JSON text, escaped when it is not printable."""
    if is_shown(letter):
        return letter
    return json.dumps(letter).strip('"') if letter != "\x7f" else "\\u007f"
