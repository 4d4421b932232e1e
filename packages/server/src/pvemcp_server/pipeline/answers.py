"""Answers as text: data first in the wanted format, then, when there is something to say, notes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from pydantic import BaseModel

from pvemcp_formats import Format, drop_empty_columns, encode, encode_document, tidy
from pvemcp_server.clusters import Notes
from pvemcp_server.errors import BadArgument, folded, nearest
from pvemcp_server.pipeline.arguments import option
from pvemcp_server.pipeline.cursors import make_cursor, read_cursor
from pvemcp_server.pipeline.sanitize import Cleaner, clean_line
from pvemcp_server.tables.registry import Row
from pvemcp_server.toolkit.registry import Document, Rows, Tool

CELL_CHARACTERS: Final = 2_000
DOCUMENT_CHARACTERS: Final = 20_000
PAGE_ROWS: Final = 400  # when nobody says how many: of ListVms, less than 25 KB
NOTES_SHOWN: Final = 30


@dataclass(frozen=True, slots=True)
class Written:
    """An answer ready to be sent."""

    data: str
    notes: str = ""
    rows: int | None = None

    @property
    def bytes(self) -> int:
        return len(self.data.encode()) + len(self.notes.encode())


@dataclass(frozen=True)
class Writer:
    """Writes the answers of one call."""

    tool: Tool
    accepted: BaseModel
    format: Format
    row_cap: int
    notes: Notes

    def write(self, answer: Rows | Document) -> Written:
        if isinstance(answer, Rows):
            return self._rows(answer)
        cleaner = Cleaner(DOCUMENT_CHARACTERS)
        cells = tidy([{n: cleaner.value(_plain(v), n) for n, v in answer.items()}])
        self._note_cut(cleaner)
        return Written(encode_document(cells[0], self.format), self._said())

    def _rows(self, answer: Rows) -> Written:
        chosen = option(self.accepted, "fields")
        columns: Sequence[str] = _chosen(chosen, self._known(answer)) if chosen else answer.columns
        page = self._page(answer.rows)
        cleaner = Cleaner(CELL_CHARACTERS)
        cells = tidy([_cells(row, columns, cleaner) for row in page], decimals=answer.decimals)
        if page and not chosen:
            cells, columns = self._without_empty(cells, columns)
        self._note_cut(cleaner)
        data = encode(cells, self.format, columns=columns)
        return Written(data, self._said(), len(page))

    def _known(self, answer: Rows) -> list[str]:
        """All columns that may be picked, whether or not there are rows to show them."""
        declared = self.tool.answer.__struct_fields__ if self.tool.answer else ()
        first = answer.rows[0] if answer.rows else None
        told = first if isinstance(first, Mapping) else ()
        return list(dict.fromkeys([*answer.columns, *declared, *told]))

    def _page(self, rows: Sequence[Row | Mapping[str, Any]]) -> Sequence[Row | Mapping[str, Any]]:
        page = page_of(self.tool, self.accepted, self.row_cap)
        if page.stop < len(rows):
            asked = self.accepted.model_dump(exclude_unset=True)
            following = make_cursor(page.stop, self.tool.name, asked)
            self.notes.add(
                f"Rows {page.start + 1}–{page.stop} of {len(rows)}; for the next page repeat the "
                f"call with cursor={following}"
            )
        return rows[page]

    def _without_empty(
        self, cells: list[dict[str, Any]], columns: Sequence[str]
    ) -> tuple[list[dict[str, Any]], Sequence[str]]:
        kept, dropped = drop_empty_columns(cells)
        if dropped:
            self.notes.add(f"Left out because empty in every row: {', '.join(dropped)}.")
        return kept, [name for name in columns if name not in dropped]

    def _note_cut(self, cleaner: Cleaner) -> None:
        if cleaner.cut:
            names = ", ".join(sorted(cleaner.cut))
            self.notes.add(f"Text longer than {cleaner.longest} characters was cut in: {names}.")

    def _said(self) -> str:
        lines = [clean_line(one) for one in self.notes]
        rest = len(lines) - NOTES_SHOWN
        return "\n".join(lines[:NOTES_SHOWN] + ([f"{rest} more notes of this kind."] * (rest > 0)))


def page_of(tool: Tool, accepted: BaseModel, row_cap: int) -> slice:
    """Which rows of a list are wanted; BadArgument for a cursor of another call."""
    cursor = option(accepted, "cursor")
    asked = accepted.model_dump(exclude_unset=True) if cursor else {}
    start = read_cursor(cursor, tool.name, asked) if cursor else 0
    return slice(start, start + min(option(accepted, "limit") or PAGE_ROWS, row_cap))


def _chosen(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the picked columns by their declared names; raises BadArgument for an unknown one."""
    declared = {folded(name): name for name in known}
    for name in names:
        if folded(name) not in declared:
            similar = nearest(name, known, 1)
            hint = f"Did you mean {similar[0]}?" if similar else f"There are {', '.join(known)}."
            raise BadArgument("fields", f"there is no column {name[:100]!r}.", hint=hint)
    return list(dict.fromkeys(declared[folded(name)] for name in names))


def _cells(
    row: Row | Mapping[str, Any], columns: Sequence[str], cleaner: Cleaner
) -> dict[str, Any]:
    get = row.get if isinstance(row, Mapping) else lambda name: getattr(row, name, None)
    return {name: cleaner.value(_joined(_plain(get(name))), name) for name in columns}


def _joined(value: Any) -> Any:
    """A list of words or numbers as one cell, as Proxmox itself writes tags: a;b."""
    if isinstance(value, list) and all(isinstance(one, str | int) for one in value):
        return ";".join(map(str, value)) or None
    return value


_SIMPLE: Final = (str, int, float, bool, type(None))


def _plain(value: Any) -> Any:
    """Structs, sets and enumerations as what the formats write."""
    if type(value) in _SIMPLE:
        return value
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((_plain(one) for one in value), key=str)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return getattr(value, "value", value)
