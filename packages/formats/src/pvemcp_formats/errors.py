"""What can go wrong between values and text.

* FormatsError
  * Unwritable       a value that no format can carry: an unknown type, half a surrogate pair
  * Unreadable       text that is not of the format it is said to be
"""


class FormatsError(ValueError):
    """Any error of this package."""


class Unwritable(FormatsError):
    """A value that no format can carry."""


class Unreadable(FormatsError):
    """Text that is not of the format it is said to be; `line` counts from 1 where known."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message if line is None else f"line {line}: {message}")
        self.line = line
