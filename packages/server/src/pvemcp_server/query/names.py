"""Unknown names in a query: the error, with suggestions."""

from collections.abc import Iterable
from typing import Any, Final

from pvemcp_server.errors import BadArgument, nearest

_SHOWN: Final = 40  # characters of the caller's text that an error repeats


def abbreviated(value: Any) -> str:
    """Return the caller's value in quotes, shortened for an error message."""
    text = repr(value[:_SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN + 2 else f"{text[:_SHOWN]}…"


def unknown_name(
    at: str,
    kind: str,
    name: str,
    known: Iterable[str],
    aliases: Iterable[str] = (),
    suggestions: Iterable[str] = (),
) -> BadArgument:
    """Build the error for an unknown name: the nearest names, then all known ones.

    `aliases` are offered only when they are near. `suggestions` replace the search for near names.
    """
    names = list(known)
    similar = list(suggestions) or nearest(name, [*aliases, *names])
    meant = f"Did you mean {' or '.join(similar)}? " if similar else ""
    hint = f"{meant}There are: {', '.join(names) or 'none'}."
    return BadArgument(at, f"no {kind} {abbreviated(name)}.", hint=hint)
