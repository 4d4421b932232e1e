"""Lists and objects that models and clients send as JSON text, or as Python writes them."""

import json
import re
from typing import Any, Final

_PYTHON_TOKENS: Final = re.compile(
    r"""'(?P<text>(?:[^'\\]|\\.)*)'|"(?:[^"\\]|\\.)*"|\b(?P<word>True|False|None)\b|['"].*""",
    re.DOTALL,
)
"""Texts and words of Python; a text that doesn't end is the rest, so that one pass is enough."""
_WORDS: Final = {"True": "true", "False": "false", "None": "null"}


def decoded(value: Any) -> Any:
    """Return the list or object that a text is the JSON of, and every other value unchanged.

    What Python's `str` makes of a list, such as "['101', None]", is read as well.
    """
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    for text in (value, _PYTHON_TOKENS.sub(_as_json, value)):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            continue
    return value


def _as_json(token: re.Match[str]) -> str:
    if word := token["word"]:
        return _WORDS[word]
    if (text := token["text"]) is None:
        return token[0]
    return '"{}"'.format(text.replace("\\'", "'").replace('"', '\\"'))


def is_absent(value: Any) -> bool:
    """Return whether a value stands for an absent one: null, blank text, or an empty container.

    Clients of strict schemas send every optional argument, those without a value as one of these.
    """
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, list | dict) and not value)
