"""Pagination: the one rule that limits the size of an answer, in rows and in tokens.

A call without `limit` gets the rows that fit into about MOST_TOKENS, DEFAULT_ROWS at most and one
at least. `limit` asks for a number of rows, up to ANSWER_CHARACTERS. No page has more rows than the
setting `row_cap`. A note says what is left out, with the cursor of the next page.

Tokens are estimated without a model's tokenizer. `docs/users/formats.md` has exact counts (o200k),
which `TABLE` repeats for the settings page.
"""

import re
from math import ceil
from typing import Final

from pydantic import BaseModel

from pvemcp_server.pipeline.cursors import make_cursor, read_cursor
from pvemcp_server.settings import DEFAULT_ROWS
from pvemcp_server.toolkit.registry import Tool

MOST_TOKENS: Final = 4_000  # estimated, of the rows of an answer to a call without `limit`
ANSWER_CHARACTERS: Final = 4_000_000  # of the rows of any answer, with the names of their columns
_SAMPLE: Final = 5 * MOST_TOKENS  # characters whose tokens are estimated; a long text repeats

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


def page_of(tool: Tool, accepted: BaseModel, row_cap: int) -> slice:
    """Return the rows that the page may have; raise BadArgument for a cursor of another call."""
    options = vars(accepted)  # those that this kind of tool has
    cursor = options.get("cursor")
    start = 0
    if cursor:
        start = read_cursor(cursor, tool.name, accepted.model_dump(exclude_unset=True))
    return slice(start, start + min(options.get("limit") or DEFAULT_ROWS, row_cap))


def rows_that_fit(accepted: BaseModel, count: int, text: str) -> int:
    """Return how many of `count` rows, encoded as `text`, fit in MOST_TOKENS; at least one.

    With `limit`, all of them fit. Fewer are an estimate, so they are encoded and checked again.
    """
    has_limit = "limit" in accepted.model_fields_set  # a tool may have a default of its own
    if has_limit or count <= 1 or len(text) <= MOST_TOKENS:  # a token has a character at least
        return count
    sample = text[:_SAMPLE]
    tokens = estimate(sample) * len(text) // len(sample)
    if tokens <= MOST_TOKENS:
        return count
    return max(1, min(count - 1, count * MOST_TOKENS // tokens))


def note_of_rest(
    tool: Tool,
    accepted: BaseModel,
    page: slice,
    end: int,
    total: int,
    tie: str = "",
    *,
    is_full: bool = False,
) -> str:
    """Return the note that an answer ends before row `end` of `total`, with the way to go on.

    `tie` says that the next row is equal in the order to the last one here, `is_full` that the
    answer has ANSWER_CHARACTERS.
    """
    cut = ""
    if is_full:
        cut = f", cut at {ANSWER_CHARACTERS:,} characters: fewer `fields` give more rows"
    elif end < min(page.stop, total):
        cut = f", cut at about {MOST_TOKENS:,} tokens: fewer `fields` or a `limit` give more rows"
    cursor = make_cursor(end, tool.name, accepted.model_dump(exclude_unset=True))
    return (
        f"Rows {page.start + 1}–{end} of {total}{cut}{tie}; for the next page repeat the call with "
        f"cursor={cursor}"
    )


def estimate(text: str) -> int:
    """Estimate the tokens of a text; for answers of tools the error is a quarter at most."""
    tokens = 0
    for match in _PIECES.finditer(text):
        piece = match.group().strip()  # a word, a number, a run of marks, or nothing but blanks
        if not piece or piece[0].isdigit():
            tokens += 1
        elif not piece[0].isalpha():
            tokens += ceil(len(piece.encode()) / _MARKS)
        elif piece[0] > "\u024f":
            tokens += ceil(len(piece.encode()) / _BYTES)
        else:
            tokens += ceil(len(piece) / (_CAPITALS if piece.isupper() else _LETTERS))
    return tokens
