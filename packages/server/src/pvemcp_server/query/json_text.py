"""Lists and objects that models and clients send as JSON text."""

import json
from typing import Any


def decoded(value: Any) -> Any:
    """Return the list or object that a text is the JSON of, and every other value unchanged."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def is_absent(value: Any) -> bool:
    """Return whether a value stands for an absent one: null, blank text, or an empty container.

    Clients of strict schemas send every optional argument, those without a value as one of these.
    """
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, list | dict) and not value)
