"""About how many tokens a text takes: estimated, without a model's vocabulary at hand.

`docs/users/formats.md` has exact counts (o200k), which `TABLE` repeats for the settings page.
"""

import re
from math import ceil
from typing import Final

_PIECES: Final = re.compile(r"[^\S\n]?[^\W\d_]+|\d{1,3}|[^\w\s]+\n*|_+|\s+")
_LETTERS: Final = 6  # of a word in one token, on average of what tools answer
_MARKS: Final = 3

FORMATS: Final = ("JsonNormal", "JsonCompact", "Toon", "Csv")
TABLE: Final = (
    ("23 × 6", 717, 454, 417, 362),
    ("23 × 19", 2_677, 1_512, 1_473, 1_422),
    ("200 × 6", 6_182, 3_749, 3_506, 3_051),
    ("200 × 19", 23_696, 13_103, 12_859, 12_454),
    ("2,000 × 6", 63_564, 38_999, 36_712, 32_124),
    ("2,000 × 19", 239_577, 133_053, 130_764, 126_758),
)
"""VMs × fields, and the tokens of each format."""


def estimate(text: str) -> int:
    """The tokens of a text, within about a seventh for the answers that tools give."""
    return sum(_tokens(found.group()) for found in _PIECES.finditer(text))


def _tokens(piece: str) -> int:
    """What one word, number, run of marks or run of spaces takes."""
    bare = piece.strip()
    if not bare:
        return int("\n" in piece or len(piece) > 1)  # one space belongs to the next word
    if bare[0].isalpha():
        return ceil(len(bare) / _LETTERS)
    return 1 if bare[0].isdigit() else ceil(len(bare) / _MARKS)
