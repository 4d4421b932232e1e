"""Estimate of the tokens in a text, without a model's tokenizer.

`docs/users/formats.md` has exact counts (o200k), which `TABLE` repeats for the settings page.
"""

import re
from math import ceil
from typing import Final

_LOWER: Final = "a-z\u00df-\u024f"
_UPPER: Final = "A-Z\u00c0-\u00de"
_PIECES: Final = re.compile(
    rf"[^\S\n]?[{_UPPER}]?[{_LOWER}]+|[^\S\n]?[{_UPPER}]+(?![{_LOWER}])|[^\W\d_]+|\d{{1,3}}"
    r"|[^\S\n]?[^\w\s]+\n*|_+|\n+|[^\S\n]+(?=[^\S\n])|[^\S\n]"
)
_LETTERS: Final = 6  # letters of a Latin word per token, on average over the answers of tools
_CAPITALS: Final = 3  # letters per token where all are upper case
_BYTES: Final = 4  # of UTF-8 per token in other scripts
_MARKS: Final = 3  # punctuation marks per token, and bytes of emoji

FORMATS: Final = ("JsonNormal", "JsonCompact", "Toon", "Csv")
TABLE: Final = (
    ("23 × 6", 717, 454, 417, 362),
    ("23 × 19", 2_677, 1_512, 1_473, 1_422),
    ("200 × 6", 6_182, 3_749, 3_506, 3_051),
    ("200 × 19", 23_696, 13_103, 12_859, 12_454),
    ("2,000 × 6", 63_564, 38_999, 36_712, 32_124),
    ("2,000 × 19", 239_577, 133_053, 130_764, 126_758),
)
"""VMs × fields, and the tokens in each format."""


def estimate(text: str) -> int:
    """Estimate the tokens of a text; for answers of tools the error is a quarter at most."""
    return sum(_tokens(match.group()) for match in _PIECES.finditer(text))


def _tokens(piece: str) -> int:
    """Estimate the tokens of one word, number, run of marks or run of spaces."""
    stripped = piece.strip()
    first = stripped[:1]
    if not first or first.isdigit():
        return 1
    if not first.isalpha():
        return ceil(len(stripped.encode()) / _MARKS)
    if first > "\u024f":
        return ceil(len(stripped.encode()) / _BYTES)
    return ceil(len(stripped) / (_CAPITALS if stripped.isupper() else _LETTERS))
