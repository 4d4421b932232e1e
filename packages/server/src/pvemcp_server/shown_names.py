"""Texts of hosts in sentences of the server: quoted where they could pass for words of its own.

A plan, a question and the facts beside it are read by a user who agrees to them. A host chooses the
names and states in them, so each goes through `shown_name`.
"""

import re
from collections.abc import Iterable
from typing import Final

LONGEST_NAME: Final = 64  # a label of DNS, as the name of a guest, has 63 at most
LONGEST_VOLUME: Final = 200  # of an id: storage, folders, file
MOST_NAMES: Final = 20
_WORDS: Final = 2
_WORD: Final = re.compile(r"[\w.,:;@!/+=%~#*^-]+", re.ASCII)


def shown_name(name: str, longest: int = LONGEST_NAME) -> str:
    """Return a name as a sentence shows it: shortened, and quoted unless it is one plain word."""
    if len(name) > longest:
        return f"{quoted(name[:longest])}… ({len(name) - longest} more characters)"
    return name if _WORD.fullmatch(name) else quoted(name)


def shown_volume(volid: str) -> str:
    """Return the id or path of a volume, of which more is shown."""
    return shown_name(volid, LONGEST_VOLUME)


def listed_names(names: Iterable[str], most: int = MOST_NAMES) -> str:
    """Return names for a sentence, the first of many: a host can list thousands."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return f"{', '.join(map(shown_name, every[:most]))}{more}"


def shown_phrase(text: str) -> str:
    """Return a name of a few plain words as it is: the number and name of a guest, for example."""
    words = text.split(" ")
    return text if len(words) <= _WORDS and all(map(_WORD.fullmatch, words)) else quoted(text)


def quoted(text: str) -> str:
    """Return a text in quotes, in which the question changes nothing: it joins several blanks."""
    return repr(text).replace("  ", " \\x20")
