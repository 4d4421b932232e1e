"""Errors of encoding and decoding.

* FormatsError
  * Unwritable       a value that cannot be encoded: an unknown type, half a surrogate pair
  * Unreadable       text that is not valid in the format
"""


class FormatsError(ValueError):
    """Base of the errors of this package."""


class Unwritable(FormatsError):
    """A value that cannot be encoded."""


class Unreadable(FormatsError):
    """Text that is not valid in the format; `line` counts from 1 and is None if unknown."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message if line is None else f"line {line}: {message}")
        self.line = line
