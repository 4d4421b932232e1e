"""Rows: their declaration as classes, and conversion of Proxmox's values to their units."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from types import UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

T = TypeVar("T")


class Unit(StrEnum):
    """The unit of a field, as GetQuerySchema and the documentation show it."""

    BYTES = "bytes"
    BYTES_PER_SECOND = "bytes/s"
    PERCENT = "percent 0-100"
    SECONDS = "seconds"
    MIB = "MiB"
    TIME = "ISO 8601 UTC"
    COUNT = "count"


class Kind(StrEnum):
    """The type of a field, which decides its operators."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TIME = "time"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class Gap:
    """What a column cannot know: `values` beside null that mean unknown, and why."""

    reason: str = ""
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Caveat:
    """A sentence for answers that a column decides or lists show.

    It doesn't hold if a condition names one of `unless`, nor for lists without a value of `about`.
    """

    text: str
    unless: tuple[str, ...] = ()
    about: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Col:
    """A field's description beyond its Python type: `Annotated[int, Col("…", Unit.BYTES)]`.

    `aliases` are further names for queries. `values` is the closed set of values, where Proxmox
    has one. `redirects` pairs a word that models compare this field with and the field that
    holds it. `gap` says when its value is unknown; a measured value is unknown when it is null.
    `caveat` is for answers that the column decides. `meanings` has words that people use for
    values, by value.
    """

    description: str
    unit: Unit | None = None
    aliases: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    redirects: tuple[tuple[str, str], ...] = ()
    gap: Gap | None = None
    caveat: Caveat | None = None
    meanings: Mapping[str, str] = field(default_factory=dict)


# mypy doesn't inherit these options from msgspec
@dataclass_transform(frozen_default=True, kw_only_default=True)
class Row(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The base of row classes. `minimal` names the fields of detail level Minimal.

    `full` names those of detail level Full, these among them; both are in the order of the answer.
    """

    minimal: ClassVar[tuple[str, ...]] = ()
    full: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True, slots=True)
class Field:
    """A declared column: name, kind, unit, choices and description."""

    name: str
    kind: Kind
    description: str
    unit: Unit | None = None
    choices: tuple[str, ...] = ()
    nullable: bool = False
    aliases: tuple[str, ...] = ()
    redirects: tuple[tuple[str, str], ...] = ()
    gap: Gap | None = None
    caveat: Caveat | None = None
    meanings: Mapping[str, str] = field(default_factory=dict, hash=False)

    def values_like(self, word: str) -> list[str]:
        """Return the values with this word in their name or meaning."""
        part = word.casefold()
        return [v for v, words in self.meanings.items() if part in v or part in words.casefold()]

    def values_for(self, word: str) -> tuple[str, ...]:
        """Return the values that this word is used for, by meaning; else the word itself."""
        folded = word.casefold()
        if folded in self.meanings and folded not in self.meanings[folded].split():
            return (folded,)
        meant = (v for v, words in self.meanings.items() if folded in (v, *words.lower().split()))
        return tuple(meant) or (word,)


GUEST_TYPES: Mapping[str, str] = {"qemu": "vm vms kvm", "lxc": "ct cts container containers"}
"""Words that people use for the types of guests."""

_MEASURED = {Unit.BYTES, Unit.BYTES_PER_SECOND, Unit.PERCENT, Unit.SECONDS}
_KINDS: dict[Any, Kind] = {
    str: Kind.TEXT,
    bool: Kind.BOOLEAN,
    int: Kind.INTEGER,
    float: Kind.NUMBER,
    datetime: Kind.TIME,
}


def fields_of(row: type[Row]) -> dict[str, Field]:
    """Return the columns of a row class, in order of declaration."""
    hints = get_type_hints(row, include_extras=True)
    return {name: _field(name, hints[name]) for name in row.__struct_fields__}


def _field(name: str, hint: Any) -> Field:
    """Return the field of an annotation such as `Annotated[int | None, Col("…")]`."""
    if get_origin(hint) is not Annotated:
        raise TypeError(f"{hint}: annotate the field with Col(description)")
    annotated, *extras = get_args(hint)
    col = next(extra for extra in extras if isinstance(extra, Col))
    variants = get_args(annotated) if get_origin(annotated) in (Union, UnionType) else (annotated,)
    python_type = next(variant for variant in variants if variant is not type(None))
    choices: tuple[str, ...] = ()
    if get_origin(python_type) is Literal:
        kind, choices = Kind.TEXT, get_args(python_type)
    elif (get_origin(python_type) or python_type) in (list, tuple, dict):
        kind = Kind.LIST
    else:
        kind = _KINDS[python_type]
    nullable = type(None) in variants
    return Field(
        name=name,
        kind=kind,
        description=col.description,
        unit=col.unit,
        choices=col.values or choices,
        nullable=nullable,
        aliases=col.aliases,
        redirects=col.redirects,
        gap=col.gap or (Gap() if nullable and col.unit in _MEASURED else None),
        caveat=col.caveat,
        meanings=col.meanings,
    )


def caveats(fields: Iterable[Field], named: AbstractSet[Any]) -> list[str]:
    """Return the caveats of fields, each once; `named` are the values that conditions name."""
    texts = (
        field.caveat.text
        for field in fields
        if field.caveat and named.isdisjoint(field.caveat.unless)
    )
    return list(dict.fromkeys(texts))


def percent(part: float | None, whole: float | None = 1) -> float | None:
    """Return a fraction, or `part` of `whole`, as a percentage with one decimal.

    Without a whole it is None.
    """
    return None if part is None or not whole else round(part / whole * 100, 1)


def moment(epoch: float | None) -> datetime | None:
    """Convert an epoch to a time; None for 0, which Proxmox writes for never, and for no time."""
    try:
        return datetime.fromtimestamp(int(epoch), UTC) if epoch else None
    except (ValueError, OverflowError, OSError):  # beyond the years 1 to 9999
        return None


def seconds_since(time: datetime | None) -> int | None:
    """Return the age of a time in whole seconds, 0 for one in the future."""
    return None if time is None else max(0, int((_now() - time).total_seconds()))


def days_until(time: datetime | None) -> int | None:
    """Return the whole days until a time, negative for one in the past."""
    return None if time is None else (time - _now()).days


def _now() -> datetime:
    return datetime.now(UTC)


def whole(number: float | None) -> int | None:
    """Round a number to an integer: bytes have no fraction."""
    return None if number is None else round(number)


def single(values: AbstractSet[T]) -> T | None:
    """Return the value of a set with one value, as Proxmox can filter by; else None."""
    return next(iter(values)) if len(values) == 1 else None
