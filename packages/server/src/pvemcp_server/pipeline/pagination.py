"""Pagination: the one rule that limits the size of an answer, in rows and in tokens.

A call without `limit` gets the rows that fit into about MOST_TOKENS, DEFAULT_ROWS at most and one
at least. `limit` asks for a number of rows, whatever they cost. No page has more rows than the
setting `row_cap`. A note says what is left out, with the cursor of the next page.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from pydantic import BaseModel

from pvemcp_server.pipeline.arguments import option
from pvemcp_server.pipeline.cursors import make_cursor, read_cursor
from pvemcp_server.pipeline.token_estimate import estimate
from pvemcp_server.settings import DEFAULT_ROWS
from pvemcp_server.toolkit.registry import Tool

MOST_TOKENS: Final = 4_000  # estimated, of the rows of an answer to a call without `limit`
_SAMPLE: Final = 5 * MOST_TOKENS  # characters whose tokens are estimated; a long text repeats

T = TypeVar("T")


def page_of(tool: Tool, accepted: BaseModel, row_cap: int) -> slice:
    """Return the rows that the page may have; raise BadArgument for a cursor of another call."""
    cursor = option(accepted, "cursor")
    start = 0
    if cursor:
        start = read_cursor(cursor, tool.name, accepted.model_dump(exclude_unset=True))
    return slice(start, start + min(option(accepted, "limit") or DEFAULT_ROWS, row_cap))


def fitted(
    accepted: BaseModel, count: int, write: Callable[[int], T], text: Callable[[T], str]
) -> tuple[int, T]:
    """Return how many of the first `count` rows fit in MOST_TOKENS, and what `write` makes of them.

    `text` returns the encoded rows of what `write` made. With `limit`, all `count` rows fit.
    """
    written = write(count)
    if "limit" not in accepted.model_fields_set:  # a tool may have a default of its own
        while count > 1 and (tokens := _tokens(text(written))) > MOST_TOKENS:
            count = max(1, min(count - 1, count * MOST_TOKENS // tokens))
            written = write(count)
    return count, written


def note_of_rest(
    tool: Tool, accepted: BaseModel, page: slice, shown: int, total: int
) -> str | None:
    """Return the note on rows that an answer leaves out, with the way to get them; else None."""
    end = page.start + shown
    if end >= total:
        return None
    cut = ""
    if end < min(page.stop, total):
        cut = f", cut at about {MOST_TOKENS:,} tokens: fewer `fields` or a `limit` give more rows"
    cursor = make_cursor(end, tool.name, accepted.model_dump(exclude_unset=True))
    return (
        f"Rows {page.start + 1}–{end} of {total}{cut}; for the next page repeat the call with "
        f"cursor={cursor}"
    )


def _tokens(text: str) -> int:
    """Estimate the tokens of the encoded rows; 0 for a text so short that it fits anyway."""
    if len(text) <= MOST_TOKENS:
        return 0
    sample = text[:_SAMPLE]
    return estimate(sample) * len(text) // len(sample)
