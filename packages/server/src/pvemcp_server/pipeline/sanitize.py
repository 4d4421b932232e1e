"""Removes invisible characters from text of guests: they could carry hidden instructions."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

# Control characters but tab and newline, marks that reorder text, and characters without width;
# the last range can spell out a hidden sentence that only a model reads.
_INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


@dataclass
class Cleaner:
    """Cleans values and collects the names of those it had to shorten."""

    longest: int
    cut: set[str] = field(default_factory=set)

    def value(self, value: Any, name: str) -> Any:
        """Return the value with its texts cleaned, at any depth."""
        if isinstance(value, str):
            return self._text(value, name)
        if isinstance(value, Mapping):
            return {self._text(str(key), name): self.value(v, name) for key, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item, name) for item in value]
        return value

    def _text(self, text: str, name: str) -> str:
        if not text.isascii() or not text.isprintable():
            text = _INVISIBLE.sub("", text)
        if len(text) <= self.longest:
            return text
        self.cut.add(name)
        return text[: self.longest - 1] + "…"


def clean_line(text: str, longest: int = 500) -> str:
    """Return the text as one visible line, for notes, questions and errors."""
    visible = _INVISIBLE.sub("", text)
    return " ".join(visible.split())[:longest]
