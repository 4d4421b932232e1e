"""Texts of hosts in sentences of the server: quoted where they could pass for words of its own.

A plan, a question and the facts beside it are read by a user who agrees to them. A host chooses the
names and states in them, so each goes through `shown_name`.
"""

import re
from typing import Final

LONGEST_NAME: Final = 64  # a label of DNS, as the name of a guest, has 63 at most
LONGEST_VOLUME: Final = 200  # of an id: storage, folders, file
_WORD: Final = re.compile(r"[\w.,:;@!/+=%~#*^-]+", re.ASCII)


def shown_name(name: str, longest: int = LONGEST_NAME) -> str:
    """Return a name as a sentence shows it: shortened, and quoted unless it is one plain word."""
    if len(name) > longest:
        return f"{quoted(name[:longest])}… ({len(name) - longest} more characters)"
    return name if _WORD.fullmatch(name) else quoted(name)


def shown_volume(volid: str) -> str:
    """Return the id or path of a volume, of which more is shown."""
    return shown_name(volid, LONGEST_VOLUME)


def quoted(text: str) -> str:
    """Return a text in quotes, in which the question changes nothing: it joins several blanks."""
    return repr(text).replace("  ", " \\x20")
