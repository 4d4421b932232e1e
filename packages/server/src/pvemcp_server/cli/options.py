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
    added = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in options.items()
    ]

    def declare(run: Run) -> Run:
        @functools.wraps(run)
        async def entered(**values: Any) -> None:
            taken = {name: values.pop(name) for name in options}
            await run(given={n: one for n, one in taken.items() if one is not None}, **values)

        # typer reads a command's options from its signature and its annotations
        own = [one for one in inspect.signature(run).parameters.values() if one.name != "given"]
        first, last = own[:-1], own[-1:]  # --json stays last
        shown = [*first, *added, *last]
        entered.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # functions have it
            [one.replace(kind=Parameter.KEYWORD_ONLY) for one in shown]
        )
        entered.__annotations__ = {one.name: one.annotation for one in shown}
        return entered

    return declare
