"""Names of clients, which they choose: they prove nothing, and never pass for words of ours."""

import re
import unicodedata
from typing import Any, Final

from pvemcp_server.invisible import INVISIBLE, one_of
from pvemcp_server.store.repository import is_storable

UNNAMED: Final = "a program without a name"
LONGEST_NAME: Final = 100
MOST_MARKS: Final = 3  # on one letter: more of them cover the lines beside it
_HIDDEN: Final = re.compile(one_of(INVISIBLE))
_QUOTES: Final = str.maketrans(
    dict.fromkeys('"\u201c\u201d\u201e\u201f\xab\xbb\u2039\u203a\uff02', "'")
)
_VISIBLE: Final = frozenset("LNPS")  # letters, numbers, punctuation, symbols
_ALIKE: Final = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU"})


def cleaned_name(value: Any) -> str:
    """Return a name as one visible line without double quotes, which pages put around it."""
    text = " ".join(value.split()) if isinstance(value, str) else ""
    text = "".join(letter for letter in _HIDDEN.sub("", text) if letter.isprintable())
    text = " ".join(_few_marks(text).translate(_QUOTES).split())[:LONGEST_NAME].rstrip()
    is_visible = any(unicodedata.category(letter)[0] in _VISIBLE for letter in text)
    return text if is_visible and is_storable(text) else UNNAMED


def mixes_scripts(name: str) -> bool:
    """Return whether letters of several scripts look alike in a name, as in Cl\u0430ude."""
    scripts = {
        script
        for letter in unicodedata.normalize("NFKC", name)
        if letter.isalpha()
        for script in unicodedata.name(letter, "").split(" ", 1)[:1]
    }
    return len(scripts & _ALIKE) > 1


def _few_marks(text: str) -> str:
    """Return the text without marks at its begin, which would be on a letter of ours."""
    kept, marks = [], MOST_MARKS
    for letter in unicodedata.normalize("NFC", text):
        marks = marks + 1 if unicodedata.category(letter)[0] == "M" else 0
        if marks <= MOST_MARKS:
            kept.append(letter)
    return "".join(kept)
