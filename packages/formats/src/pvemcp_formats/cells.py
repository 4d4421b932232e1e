"""Text of scalars, one cell or a whole column at a time."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TypeVar

from pvemcp_formats.errors import Unwritable
from pvemcp_formats.numbers import write_number
from pvemcp_formats.values import Value, timestamp

Key = TypeVar("Key")


class TextCache(dict[Key, str]):
    """Cache from values to their text; the values of a column repeat."""

    def __init__(self, write: Callable[[Key], str]) -> None:
        super().__init__()
        self._write = write

    def __missing__(self, value: Key) -> str:
        text = self[value] = self._write(value)
        return text


class Cells(dict[type, Callable[..., str]]):
    """Writers by type; a subclass is written like its nearest base."""

    def __init__(self, quote: Callable[[str], str], *, null: str) -> None:
        self.text = TextCache(quote).__getitem__
        super().__init__(
            {
                type(None): lambda _: null,
                bool: {True: "true", False: "false"}.__getitem__,
                int: int.__repr__,
                float: TextCache[float](lambda number: write_number(number) or null).__getitem__,
                str: self.text,
                datetime: lambda moment: self.text(timestamp(moment)),
            }
        )

    def __missing__(self, kind: type) -> Callable[..., str]:
        for base in kind.__mro__:
            if base in self:
                self[kind] = self[base]
                return self[kind]
        raise Unwritable(f"cannot encode a value of type {kind.__name__}")

    def write(self, value: Value) -> str:
        """Return the text of one value."""
        return self[type(value)](value)

    def column(self, values: Sequence[Value]) -> Iterable[str]:
        """Return the text of each value of a column; usually they share one type."""
        kinds = set(map(type, values))
        if len(kinds) == 1:
            return map(self[kinds.pop()], values)
        return [self[type(value)](value) for value in values]
