"""Estimate of the tokens in a text, without a model's tokenizer.

`docs/users/formats.md` has exact counts (o200k), which `TABLE` repeats for the settings page.
"""

import re
from math import ceil
from typing import Final

_PIECES: Final = re.compile(r"[^\S\n]?[^\W\d_]+|\d{1,3}|[^\w\s]+\n*|_+|\s+")
_LETTERS: Final = 6  # letters per token, on average over the answers of tools
_MARKS: Final = 3  # punctuation marks per token

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
    """Estimate the tokens of a text; for answers of tools the error is about 15 %."""
    return sum(_tokens(match.group()) for match in _PIECES.finditer(text))


def _tokens(piece: str) -> int:
    """Estimate the tokens of one word, number, run of marks or run of spaces."""
    stripped = piece.strip()
    if not stripped:
        return int("\n" in piece or len(piece) > 1)  # a single space belongs to a word
    if stripped[0].isalpha():
        return ceil(len(stripped) / _LETTERS)
    return 1 if stripped[0].isdigit() else ceil(len(stripped) / _MARKS)
