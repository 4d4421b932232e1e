"""Validation of arguments: a misspelled one is an error, never ignored.

Clients and models write the same argument in several forms, which are read alike: null, "" and []
for an optional one that has no value, a list as its JSON text, with commas, with semicolons or as a
single value, a number in place of a text, and a choice in any case.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Final, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from pvemcp_server.errors import MOST_WRONG, BadArgument, folded, nearest
from pvemcp_server.query.json_text import decoded, is_absent
from pvemcp_server.toolkit.arguments import Absent, AlsoNamed, Clamp, Rule, Whole, Words
from pvemcp_server.toolkit.registry import Tool

E = TypeVar("E")

_NUMBERS: Final = re.compile(r"[\d\s,;]+", re.ASCII)
_LONG_NUMBER: Final = 18  # digits
_DIGITS: Final = re.compile(r"[0-9]+")
_MOST_ENTRIES: Final = 1_000  # of a list: to explain 100,000 wrong ones takes seconds
_REQUIRED: Final = "this argument is required."


def read_arguments(tool: Tool, arguments: Mapping[str, Any]) -> BaseModel:
    """Validate the arguments; raise BadArgument that lists the wrong ones with valid values.

    They are read in their declared forms; those that have no value are left out.
    """
    declared = _declared(tool.accepted)
    own_names = _own_names(tool.accepted)
    own = {other: name for other, name in own_names.items() if name not in arguments}
    arguments = {own.get(name, name): value for name, value in arguments.items()}
    in_one_form = {
        name: declared[name].read(value) if name in declared else value
        for name, value in arguments.items()
        if name not in declared or declared[name].required or not declared[name].is_absent(value)
    }
    for name, value in in_one_form.items():
        if isinstance(value, list) and len(value) > _MOST_ENTRIES:
            raise BadArgument(name, f"it has {len(value):,} entries, more than {_MOST_ENTRIES:,}.")
    try:
        return tool.accepted.model_validate(in_one_form)
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)[:MOST_WRONG]
        names = list({**tool.arguments.model_fields, **tool.accepted.model_fields})
        facts = [f"{_name(error)}: {_fact(error, names, tool)}" for error in errors]
        if rest := invalid.error_count() - len(errors):
            facts.append(f"{rest} more are wrong.")
        first, *further = dict.fromkeys(facts)
        wrong, _, fact = first.partition(": ")
        unknown = any(error["type"] == "extra_forbidden" for error in errors)
        hint = f"Accepted are {', '.join(names)}.{_by_query(errors, tool)}" if unknown else ""
        raise BadArgument(wrong, " ".join([fact, *further]), hint=hint) from None


def _by_query(errors: Iterable[ErrorDetails], tool: Tool) -> str:
    """Return the way to filter a list by its own columns, if an unknown argument is one."""
    columns = {folded(name) for name in tool.answer.__struct_fields__} if tool.answer else set()
    names = [_name(e) for e in errors if e["type"] == "extra_forbidden"]
    filters = [name for name in names if tool.lists and folded(name) in columns]
    return f" ExecuteQuery filters by {', '.join(filters)}." if filters else ""


@dataclass(frozen=True, slots=True)
class _Declared:
    """What decides about the forms of one argument."""

    required: bool
    is_list: bool
    choices: Mapping[str, Any]  # by folded name; empty for free values
    absent: frozenset[str]  # words that stand for no value, folded
    clamp: Clamp | None
    whole: bool = False  # entries of a list are not split
    also_named: str = ""

    def is_absent(self, value: Any) -> bool:
        """Return whether the value means the same as leaving the argument out."""
        only = value[0] if isinstance(value, list) and len(value) == 1 else value
        if isinstance(only, str) and folded(only.strip()) in self.absent:
            return True
        if self.clamp and str(value).strip() == "0":
            return True
        return is_absent(value)

    def read(self, value: Any) -> Any:
        """Return the value in its declared form, as far as it is one of the known forms."""
        if self.clamp and self.clamp.most is not None and _DIGITS.fullmatch(str(value)):
            # int() refuses thousands of digits
            is_long = len(str(value)) > _LONG_NUMBER
            return self.clamp.most if is_long else min(int(value), self.clamp.most)
        if value is None or not self.is_list:
            return self._choice(value)
        value = decoded(value)
        entries = value if isinstance(value, list) else [value]
        if self.whole:
            return [] if is_absent(value) else entries
        return [self._choice(part) for entry in entries for part in _parts_of(entry)]

    def _choice(self, value: Any) -> Any:
        if not self.choices or not isinstance(value, str):
            return value
        return self.choices.get(folded(value.strip()), value)


def _parts_of(entry: Any) -> list[Any]:
    """Return the values in one entry of a list; only numbers are separated by blanks too."""
    if not isinstance(entry, str):
        return [entry]
    separators = r"[\s,;]" if _NUMBERS.fullmatch(entry) else r"[,;\n]"
    return [part.strip() for part in re.split(separators, entry) if part.strip()]


@lru_cache(256)
def _declared(model: type[BaseModel]) -> Mapping[str, _Declared]:
    return {name: _declaration(field) for name, field in model.model_fields.items()}


def _declaration(field: FieldInfo) -> _Declared:
    hints = list(_parts(field.annotation))
    values = [v for hint in hints if get_origin(hint) is Literal for v in get_args(hint)]
    values += [v.value for hint in hints if _is_enum(hint) for v in hint]
    return _Declared(
        required=field.is_required(),
        is_list=any(get_origin(hint) is list for hint in hints),
        choices={folded(value): value for value in values} | _words(field),
        absent=frozenset(folded(word) for extra in _all(field, Absent) for word in extra.words),
        clamp=next(_all(field, Clamp), None),
        whole=any(_all(field, Whole)),
        also_named=next((extra.name for extra in _all(field, AlsoNamed)), ""),
    )


@lru_cache(256)
def _own_names(model: type[BaseModel]) -> Mapping[str, str]:
    """Return the names of arguments by the other names under which they are given."""
    return {each.also_named: name for name, each in _declared(model).items() if each.also_named}


def _all(field: FieldInfo, kind: type[E]) -> Iterator[E]:
    """Yield the extras of a kind that the argument is declared with."""
    return (extra for extra in field.metadata if isinstance(extra, kind))


def _words(field: FieldInfo) -> dict[str, str]:
    """Return the choices by words that people use for them."""
    declared = (extra.meanings for extra in _all(field, Words))
    return {
        folded(word): choice
        for meanings in declared
        for choice, words in meanings.items()
        for word in words.split()
    }


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Enum)


def _parts(hint: Any) -> Iterable[Any]:
    """Yield a type and the types inside it; not the values of a Literal."""
    yield hint
    if get_origin(hint) is not Literal:
        for part in get_args(hint):
            yield from _parts(part)


def _name(error: ErrorDetails) -> str:
    return ".".join(str(part) for part in error["loc"])[:100]


def _fact(error: ErrorDetails, names: Iterable[str], tool: Tool) -> str:
    match error["type"]:
        case "extra_forbidden":
            similar = nearest(_name(error), names, 1)
            suggestion = f", did you mean {similar[0]}?" if similar else "."
            return f"there is no such argument{suggestion}"
        case "missing":
            return _REQUIRED
        case _ if is_absent(error["input"]):
            return _REQUIRED
        case "int_parsing" if _name(error).startswith("vmid"):
            return f"{_sentence(error)} ListVms shows the number of each name."
        case "string_pattern_mismatch" if rule := _rule(error, tool):
            return f"{rule.words}."
        case _:
            return _sentence(error)


def _sentence(error: ErrorDetails) -> str:
    return error["msg"].removesuffix(".") + "."


def _rule(error: ErrorDetails, tool: Tool) -> Rule | None:
    """Return the rule that explains the argument's pattern in words, if it has one."""
    declared = tool.arguments.model_fields.get(str(error["loc"][0]))
    if declared is None:
        return None
    extras = [*declared.metadata, *_extras(declared.annotation)]
    return next((extra for extra in extras if isinstance(extra, Rule)), None)


def _extras(hint: Any) -> Iterable[Any]:
    """Yield the metadata of `Annotated` anywhere inside a type."""
    yield from getattr(hint, "__metadata__", ())
    for part in get_args(hint):
        yield from _extras(part)
