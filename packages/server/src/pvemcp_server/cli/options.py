"""Options that several commands take alike, declared once."""

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from inspect import Parameter
from typing import Any

Given = dict[str, Any]
Run = Callable[..., Awaitable[None]]


def taking(options: Mapping[str, Any]) -> Callable[[Run], Run]:
    """The command takes these options beside its own; it gets those that were used as `given`."""

    def declare(run: Run) -> Run:
        @functools.wraps(run)
        async def entered(**values: Any) -> None:
            taken = {name: values.pop(name) for name in options}
            await run(given={n: one for n, one in taken.items() if one is not None}, **values)

        _show(entered, _parameters(run, options))
        return entered

    return declare


def _parameters(run: Run, options: Mapping[str, Any]) -> list[Parameter]:
    """The command's own with the options in place of `given`."""
    shown: list[Parameter] = []
    for one in inspect.signature(run).parameters.values():
        if one.name == "given":
            shown += (
                Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind)
                for name, kind in options.items()
            )
        else:
            shown.append(one.replace(kind=Parameter.KEYWORD_ONLY))
    return shown


def _show(run: Run, parameters: list[Parameter]) -> None:
    """Typer reads a command's options from its signature and its annotations."""
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # functions have it
    run.__annotations__ = {one.name: one.annotation for one in parameters}
