"""Answers as text: sanitized data in the chosen format, then the notes, if there are any.

What a reader cannot see is removed, because a model reads it nevertheless: texts of guests and of
Proxmox could carry hidden instructions in characters without a glyph.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
from pydantic import BaseModel

from pvemcp_formats import Format, drop_empty_columns, encode, encode_document, tidy
from pvemcp_server.clusters import Notes
from pvemcp_server.errors import MOST_WRONG, BadArgument, counted, folded, nearest
from pvemcp_server.invisible import INVISIBLE, one_of
from pvemcp_server.pipeline.chart_image import Picture
from pvemcp_server.pipeline.pagination import (
    ANSWER_CHARACTERS,
    estimate,
    note_of_rest,
    rows_that_fit,
)
from pvemcp_server.tables.rows import Row
from pvemcp_server.toolkit.registry import Document, Rows, Tool

T = TypeVar("T")

CELL_CHARACTERS: Final = 2_000
DOCUMENT_CHARACTERS: Final = 20_000
LIST_ITEMS: Final = 1_000  # of one list or object
CELL_ITEMS: Final = 10_000  # of all lists and objects in one cell
CELL_TEXTS: Final = 10  # of the longest: what all texts in one cell may have together
MOST_NOTES: Final = 30
MANY_CELLS: Final = 5_000  # about ten milliseconds of work of `Writer.rows`
_NUMBERS: Final = (int, float, bool)
# lines of TOON save tokens where names of columns repeat, and Csv where nothing is nested
_DOCUMENTS: Final = {
    Format.TOON: (Format.JSON_COMPACT, Format.TOON),
    Format.CSV: (Format.CSV, Format.JSON_COMPACT),
}

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


_PICTURE = f"{one_of(_PICTURES)}[\ufe0e\ufe0f]?"
_KEYCAP = "[0-9#*]\ufe0f\u20e3"
_KEPT_OR_INVISIBLE: Final = re.compile(
    f"({_PICTURE}(?:\u200d{_PICTURE})*|{_KEYCAP})|{one_of(INVISIBLE)}"
)


@dataclass
class Cleaner:
    """Converts values to what the formats write, and cleans their texts.

    Invisible characters in texts of guests could carry hidden instructions. The names of values
    that had to be shortened are collected in `cut`, those with lists that had to be in `more`,
    with how many items are missing: a few kilobytes of gzip of a hostile host hold millions.
    """

    longest: int
    cut: set[str] = field(default_factory=set)
    more: dict[str, int] = field(default_factory=dict)
    characters: int = 0  # of all names and texts so far
    _items_left: int = 0  # of the present value
    _end: int = 0  # of its characters

    def value(self, value: Any, name: str, *, is_part: bool = False) -> Any:
        """Return the value clean, at any depth; structs, sets and enumerations are converted.

        A value that `is_part` of another one shares its bounds.
        """
        if not is_part:
            self._items_left = CELL_ITEMS
            self.characters += len(name)
            self._end = self.characters + CELL_TEXTS * self.longest
        if value is None or type(value) in _NUMBERS:
            return value
        if isinstance(value, str):
            # what is cut off is not read: it may have megabytes, nearly all of them invisible
            text = visible(value[: 2 * self.longest])
            if len(text) > self.longest or len(value) > 2 * self.longest:
                self.cut.add(name)
                text = text[: self.longest - 1] + "…"
            self.characters += len(text)
            return text
        if not isinstance(value, list | tuple):
            value = _plain(value)
        is_mapping = isinstance(value, Mapping)
        if not is_mapping and not isinstance(value, list | tuple):
            return value
        part = partial(self.value, name=name, is_part=True)
        kept: list[Any] = []
        for number, item in enumerate(value.items() if is_mapping else value):
            # the present value has as many items, or as long ones, as a cell has
            has_end = self._items_left <= 0 or self.characters >= self._end
            if has_end or number >= LIST_ITEMS:
                self.more[name] = self.more.get(name, 0) + len(value) - number
                break
            self._items_left -= 1
            kept.append((part(str(item[0])), part(item[1])) if is_mapping else part(item))
        return dict(kept) if is_mapping else kept


def _plain(value: Any) -> Any:
    """Return a struct as a mapping, a set as a list, a member of an enumeration as its value."""
    if isinstance(value, msgspec.Struct):
        return {key: getattr(value, key) for key in value.__struct_fields__}
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    return value.value if isinstance(value, Enum) else value


def single_lines(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with line ends of texts written as `\\n`, for Csv; other formats escape them.

    A model reads a quoted cell of several lines like lines of the answer, so text of a guest could
    pass for a note.
    """
    return [
        {n: v.replace("\n", "\\n") if isinstance(v, str) else v for n, v in row.items()}
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class Written:
    """An answer ready to be sent."""

    data: str
    values: Mapping[str, Any]  # the same as JSON values: `columns` and `rows`, or a `document`
    notes: str = ""
    rows: int | None = None
    picture: Picture | None = None


@dataclass(frozen=True)
class Writer:
    """Writes the answer of one call; `page` has the rows that are shown of a list."""

    tool: Tool
    accepted: BaseModel
    format: Format
    page: slice
    notes: Notes

    def document(self, answer: Document) -> Written:
        """Write a document; text that is cut is named in the notes."""
        cleaner = Cleaner(DOCUMENT_CHARACTERS)
        row = {n: cleaner.value(v, n) for n, v in answer.items()}
        cells = tidy([row])
        texts = (
            encode_document((single_lines(cells) if each is Format.CSV else cells)[0], each)
            for each in _DOCUMENTS.get(self.format, (self.format,))
        )
        return Written(min(texts, key=estimate), {"document": cells[0]}, self._notes(cleaner))

    def rows(self, answer: Rows) -> Written:
        """Write one page: the picked columns, or the answer's own without the empty ones.

        Columns that are left out and text that is cut are named in the notes.
        """
        picked = vars(self.accepted).get("fields")
        columns = self._picked(picked, answer) if picked else list(answer.columns)
        as_lists = self.format is Format.JSON_NORMAL
        rows = answer.rows[self.page]
        empty: list[str] = []
        is_full = False
        while True:
            cleaner = Cleaner(CELL_CHARACTERS)
            cleaned: list[dict[str, Any]] = []
            for row in rows:
                if cleaner.characters >= ANSWER_CHARACTERS:
                    is_full = True
                    break
                cleaned.append(_cells(row, columns, cleaner, as_lists=as_lists))
            rows = rows[: len(cleaned)]
            cells = tidy(cleaned, decimals=answer.decimals)
            if not picked:
                cells, empty = drop_empty_columns(cells)
            shown = [name for name in columns if name not in empty]
            if self.format is Format.CSV:
                cells = single_lines(cells)
            data = encode(cells, self.format, columns=shown)
            fitting = rows_that_fit(self.accepted, len(rows), data)
            if fitting == len(rows):
                break
            rows = rows[:fitting]
        end, total = self.page.start + len(rows), len(answer.rows)
        if end < total:
            tie = answer.tie_at(end)
            self.notes.add(
                note_of_rest(self.tool, self.accepted, self.page, end, total, tie, is_full=is_full)
            )
        if empty:
            names = _with_reasons(empty, answer.reasons)
            self.notes.add(f"Left out because empty in every row: {names}.")
        values = {"columns": shown, "rows": cells}
        return Written(data, values, self._notes(cleaner), len(rows))

    def _picked(self, names: Sequence[str], answer: Rows) -> list[str]:
        """Return the picked columns by their declared names; raise BadArgument for unknown ones.

        Columns can be picked whether or not there are rows that have them.
        """
        declared = self.tool.answer.__struct_fields__ if self.tool.answer else ()
        first = answer.rows[0] if answer.rows else None
        in_rows = first if isinstance(first, Mapping) else ()
        known = list(dict.fromkeys([*answer.columns, *declared, *in_rows]))
        by_folded = {folded(name): name for name in known}
        unknown = list(dict.fromkeys(n for n in names if folded(n) not in by_folded))
        if unknown:
            similar = {name: nearest(name, known, 1) for name in unknown[:MOST_WRONG]}
            facts = (
                f"there is no column {name[:100]!r}"
                + (f", did you mean {near[0]}?" if near else ".")
                for name, near in similar.items()
            )
            hint = "" if all(similar.values()) else f"There are {', '.join(known)}."
            rest = len(unknown) - len(similar)
            more = [f"{rest} more are wrong."] if rest else []
            raise BadArgument("fields", " ".join([*facts, *more]), hint=hint)
        return list(dict.fromkeys(by_folded[folded(name)] for name in names))

    def _notes(self, cleaner: Cleaner) -> str:
        if cleaner.cut:
            names = ", ".join(sorted(cleaner.cut))
            self.notes.add(f"Text longer than {cleaner.longest} characters was cut in: {names}.")
        if cleaner.more:
            counts = ", ".join(f"{name} ({n:,} more)" for name, n in sorted(cleaner.more.items()))
            self.notes.add(f"Long lists were cut in: {counts}.")
        lines = [clean_line(note) for note in self.notes]
        rest = len(lines) - MOST_NOTES
        more = [f"{counted(rest, 'more note')} of this kind."] if rest > 0 else []
        return "\n".join(lines[:MOST_NOTES] + more)


def _with_reasons(names: Sequence[str], reasons: Mapping[str, str]) -> str:
    """Return the names, those with a reason in groups: a, b; c, d (reason)."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(reasons.get(name, ""), []).append(name)
    return "; ".join(
        f"{', '.join(group)} ({reason})" if reason else ", ".join(group)
        for reason, group in sorted(groups.items(), key=lambda pair: bool(pair[0]))
    )


def _cells(
    row: Row | Mapping[str, Any], columns: Sequence[str], cleaner: Cleaner, *, as_lists: bool
) -> dict[str, Any]:
    """Return the clean cells of a row.

    Unless `as_lists`, a list of words is one cell, a;b, as Proxmox has tags.
    """
    get = row.get if isinstance(row, Mapping) else lambda name: getattr(row, name, None)
    cells = {}
    for name in columns:
        value = cleaner.value(get(name), name)
        is_words = isinstance(value, list) and all(isinstance(item, str | int) for item in value)
        if is_words and not as_lists:
            value = cleaner.value(";".join(map(str, value)), name) or None
        cells[name] = value
    return cells


def visible(text: str) -> str:
    """Return the text without invisible characters; tab, newline and emoji stay."""
    if text.isascii() and text.isprintable():
        return text
    return _KEPT_OR_INVISIBLE.sub(r"\1", text)


def clean_line(text: str, longest: int = 500) -> str:
    """Return the text as one visible line, for notes, questions and errors."""
    return " ".join(visible(text).split())[:longest]
