"""Visible text: what a reader cannot see is removed, because a model reads it nevertheless.

Texts of guests and of Proxmox could carry hidden instructions in characters without a glyph.
"""

import re
from typing import Final

# Default_Ignorable_Code_Point of Unicode 16.0 (DerivedCoreProperties.txt), with its reserved ones
DEFAULT_IGNORABLE: Final = (
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)
_ALSO_INVISIBLE: Final = (
    (0x00, 0x08),  # controls but tab and newline
    (0x0B, 0x1F),
    (0x7F, 0x9F),
    (0x2028, 0x2029),  # separators of lines and paragraphs
    (0x2800, 0x2800),  # the empty Braille pattern
    (0xD800, 0xDFFF),  # surrogates
    (0xFFF9, 0xFFFB),  # annotations
    (0x13430, 0x1343F),  # format controls of hieroglyphs
)
INVISIBLE: Final = (*DEFAULT_IGNORABLE, *_ALSO_INVISIBLE)
"""Ranges of code points, first and last. Variation selectors and joiners stay within an emoji."""

_PICTURES: Final = (
    (0x00A9, 0x00A9),
    (0x00AE, 0x00AE),
    (0x203C, 0x203C),
    (0x2049, 0x2049),
    (0x2122, 0x2122),
    (0x2139, 0x2139),
    (0x2194, 0x21AA),
    (0x231A, 0x23FF),
    (0x24C2, 0x24C2),
    (0x25AA, 0x27BF),
    (0x2934, 0x2935),
    (0x2B05, 0x2B55),
    (0x3030, 0x3030),
    (0x303D, 0x303D),
    (0x3297, 0x3299),
    (0x1F000, 0x1FAFF),
)


def _one_of(ranges: tuple[tuple[int, int], ...]) -> str:
    return "[" + "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges) + "]"


_PICTURE = f"{_one_of(_PICTURES)}[\ufe0e\ufe0f]?"
_KEYCAP = "[0-9#*]\ufe0f\u20e3"
_KEPT_OR_INVISIBLE: Final = re.compile(
    f"({_PICTURE}(?:\u200d{_PICTURE})*|{_KEYCAP})|{_one_of(INVISIBLE)}"
)


def visible(text: str) -> str:
    """Return the text without invisible characters; tab, newline and emoji stay."""
    if text.isascii() and text.isprintable():
        return text
    return _KEPT_OR_INVISIBLE.sub(r"\1", text)


def clean_line(text: str, longest: int = 500) -> str:
    """Return the text as one visible line, for notes, questions and errors."""
    return " ".join(visible(text).split())[:longest]
