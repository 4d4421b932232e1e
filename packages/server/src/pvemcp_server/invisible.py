"""Invisible characters, by the ranges of Unicode's property and what renders blank."""

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
    (0xFFF9, 0xFFFC),  # annotations, the place of an object
    (0x13430, 0x1343F),  # format controls of hieroglyphs
    (0x1D159, 0x1D159),  # the empty note
)
INVISIBLE: Final = (*DEFAULT_IGNORABLE, *_ALSO_INVISIBLE)
"""Ranges of code points, first and last. Variation selectors and joiners stay within an emoji."""


def one_of(ranges: tuple[tuple[int, int], ...]) -> str:
    """Return the class of these ranges for a regular expression."""
    return "[" + "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges) + "]"
