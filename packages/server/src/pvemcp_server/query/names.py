"""Unknown names in a query: the error, with suggestions."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from pvemcp_server.errors import BadArgument, nearest

_SHOWN: Final = 40  # characters of the caller's text that an error repeats


def abbreviated(value: Any) -> str:
    """Return the caller's value in quotes, shortened for an error message."""
    text = repr(value[:_SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN + 2 else f"{text[:_SHOWN]}…"


class UnknownWord(BadArgument):
    """A name that the query language or the tables do not have."""

    def __init__(self, at: str, fact: str, similar: Sequence[str], known: Sequence[str]) -> None:
        self.fact = fact
        self.meant = f"Did you mean {' or '.join(similar)}? " if similar else ""
        self.choice = f"There are: {', '.join(known) or 'none'}."
        super().__init__(at, fact, hint=f"{self.meant}{self.choice}")


def unknown_name(
    at: str,
    kind: str,
    name: str,
    known: Iterable[str],
    aliases: Iterable[str] = (),
    suggestions: Iterable[str] = (),
) -> UnknownWord:
    """Build the error for an unknown name: the nearest names, then all known ones.

    `aliases` are offered only when they are near. `suggestions` replace the search for near names.
    """
    names = list(known)
    similar = list(suggestions) or nearest(name, [*aliases, *names])
    return UnknownWord(at, f"no {kind} {abbreviated(name)}.", similar, names)


def joined(errors: Sequence[UnknownWord]) -> BadArgument:
    """Return one error for several unknown names; names that all of them could be are listed once.

    A model that is given only the first would need a call for each.
    """
    first, *others = errors
    places = [f"{other.argument}: {other.fact} {other.meant}".strip() for other in others]
    facts = [f"{first.fact} {first.meant}".strip(), *places]
    choices = dict.fromkeys(error.choice for error in errors)
    return BadArgument(first.argument, " ".join(facts), hint=" ".join(choices))
