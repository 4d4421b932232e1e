"""Text blocks of a tool's result, as clients receive them."""

from collections.abc import Sequence

import mcp_types as types


def content_of(blocks: Sequence[str]) -> list[types.ContentBlock]:
    """Return the data, then the notes on a line of their own.

    Some clients join the blocks of a result without a separator, so that the notes would be read
    as part of the data.
    """
    data, *notes = blocks
    return [types.TextContent(text=text) for text in (data, *(f"\n{note}" for note in notes))]
