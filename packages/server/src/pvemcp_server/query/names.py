"""Names as models write them: case and underscores don't matter, near misses are told."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from pvemcp_server.errors import BadArgument

_SHOWN = 40  # characters of a wrong name that are repeated to the caller
_NOTHING = {ord(sign): None for sign in "_- "}


def plain(name: str) -> str:
    """A name without case, underscores, dashes and spaces; ASCII only, so that no other matches."""
    return name.lower().translate(_NOTHING) if name.isascii() else ""


def shown(given: Any) -> str:
    """What the caller wrote, short enough to be repeated."""
    written = repr(given[:_SHOWN] if isinstance(given, str) else given)
    return written if len(written) <= _SHOWN + 2 else f"{written[:_SHOWN]}…"


def unknown(
    at: str,
    kind: str,
    name: str,
    known: Iterable[str],
    also: Iterable[str] = (),
    same: Iterable[str] = (),
) -> BadArgument:
    """The error for a name that there is not, with the nearest ones and all of them.

    `also` are further names, told only when they are near; `same` are known to mean that one.
    """
    names = list(known)
    by_plain = {plain(one): one for one in (*also, *names)}
    close = get_close_matches(plain(name[:_SHOWN]), by_plain, 3, 0.6)
    near = list(same) or [by_plain[one] for one in close]
    meant = f"Did you mean {' or '.join(near)}? " if near else ""
    return BadArgument(
        at, f"no {kind} {shown(name)}.", hint=f"{meant}There are: {', '.join(names) or 'none'}."
    )
