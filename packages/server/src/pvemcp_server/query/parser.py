"""Reads a query as models write it: JSON or its text, bare values for lists, names in any case."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from pvemcp_server.errors import BadArgument
from pvemcp_server.query.model import (
    Condition,
    Conditions,
    Name,
    Ordered,
    Query,
    Selected,
    Summary,
    Term,
)
from pvemcp_server.query.names import plain, shown, unknown
from pvemcp_server.query.operators import (
    MEANT_OPERATOR,
    MOST_VALUES,
    SAME_FUNCTION,
    SAME_OPERATOR,
    Function,
    Logic,
    Operator,
)

MOST_CONDITIONS: Final = 64
MOST_DEPTH: Final = 6
MOST_COLUMNS: Final = 60
MOST_TEXT: Final = 100_000  # characters of a query given as text

Json = Any

_FAR: Final = 1_000_000_000  # nobody pages further
_PARTS: Final = (
    "from", "select", "where", "groupBy", "having", "orderBy", "distinct", "limit", "offset",
)  # fmt: skip
_EXAMPLE: Final = (
    'For example {"from": "guests", "select": ["name"], '
    '"where": {"field": "status", "operator": "=", "value": "running"}}.'
)
_TERMS: Final = (
    'Write "name", "node.status", "COUNT(*) as n" or "COUNT(DISTINCT node) as nodes", one by one.'
)
_IN_CONDITION: Final = ("field", "operator", "value", "logic", "conditions")
_IN_ORDER: Final = ("field", "direction")
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_. -]{0,119}"
_FIELD: Final = re.compile(rf"\s*({_NAME}?)(?:\s+as\s+(\S.*?))?\s*", re.ASCII | re.IGNORECASE)
_SUMMARY: Final = re.compile(
    rf"\s*([A-Za-z]+)\s*\(\s*(distinct\s+)?(\*|{_NAME}?)\s*\)(?:\s+as\s+(\S.*?))?\s*",
    re.ASCII | re.IGNORECASE,
)
_ALIAS: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", re.ASCII)
_DIRECTIONS: Final = {"asc": False, "ascending": False, "desc": True, "descending": True}
_OPERATORS: Final = {plain(one): one for one in Operator} | {
    plain(name): one for name, one in SAME_OPERATOR.items()
}
_MEANT: Final = {plain(name): those for name, those in MEANT_OPERATOR.items()}
_FUNCTIONS: Final = {one.value: one for one in Function} | SAME_FUNCTION


def read(asked: Json) -> Query:
    """The query; BadArgument with its place when something is not as it should be."""
    given = _members(_object(asked), "query", _PARTS)
    if "from" not in given:
        raise BadArgument("from", "say which table.", hint='For example {"from": "guests"}.')
    budget = _Budget()
    everything, select = _select(given.get("select"))
    return Query(
        table=_text(given["from"], "from"),
        select=select,
        everything=everything,
        where=_conditions(given.get("where"), "where", budget),
        group_by=tuple(_names(given.get("groupBy"), "groupBy")),
        having=_conditions(given.get("having"), "having", budget),
        order_by=tuple(_ordered(one, at) for one, at in _listed(given.get("orderBy"), "orderBy")),
        distinct=_flag(given.get("distinct"), "distinct"),
        limit=_count(given["limit"], "limit", 1) if given.get("limit") is not None else None,
        offset=_count(given.get("offset") or 0, "offset", 0),
    )


class _Budget:
    """How many conditions and values a query still may have."""

    def __init__(self) -> None:
        self.conditions = MOST_CONDITIONS
        self.values = MOST_VALUES

    def condition(self, at: str) -> None:
        self.conditions -= 1
        if self.conditions < 0:
            raise BadArgument(at, f"a query has at most {MOST_CONDITIONS} conditions.")

    def take(self, at: str, values: int) -> None:
        self.values -= values
        if self.values < 0:
            raise BadArgument(at, f"a query compares with at most {MOST_VALUES} values.")


def _object(asked: Json) -> Mapping[str, Json]:
    if isinstance(asked, str):
        asked = _parsed(asked)
    if not isinstance(asked, Mapping):
        raise BadArgument("query", "it is an object.", hint=_EXAMPLE)
    return asked


def _parsed(text: str) -> Json:
    if len(text) > MOST_TEXT:
        raise BadArgument("query", f"it has at most {MOST_TEXT} characters.")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        fault = f"this is not JSON: {error.msg} at {where}."
        raise BadArgument("query", fault, hint=_EXAMPLE) from error
    except RecursionError as error:
        raise BadArgument("query", "it is nested too deeply.") from error


def _members(given: Mapping[str, Json], at: str, known: tuple[str, ...]) -> dict[str, Json]:
    """The object's members by their names as we write them."""
    by_plain = {plain(name): name for name in known}
    found: dict[str, Json] = {}
    for key, value in given.items():
        name = by_plain.get(plain(str(key)))
        if name is None:
            raise unknown(at, "part", str(key), known)
        if name in found:
            raise BadArgument(f"{at}.{name}", "it is there twice.")
        found[name] = value
    return found


def _listed(given: Json, at: str) -> list[tuple[Json, str]]:
    """The entries of a list with their places; a single one may stand without its list."""
    if given is None:
        return []
    if not isinstance(given, list):
        return [(given, at)]
    if len(given) > MOST_COLUMNS:
        raise BadArgument(at, f"at most {MOST_COLUMNS} entries.")
    return [(one, f"{at}[{n}]") for n, one in enumerate(given)]


def _select(given: Json) -> tuple[bool, tuple[Selected, ...]]:
    entries = _listed(given, "select")
    stars = [one for one, _ in entries if isinstance(one, str) and one.strip() == "*"]
    if stars and len(entries) > 1:
        raise BadArgument("select", '"*" stands alone.', hint="Leave it out, or all others.")
    return bool(stars), () if stars else tuple(_selected(one, at) for one, at in entries)


def _selected(given: Json, at: str) -> Selected:
    term, alias = _term(given, at)
    if alias is not None and not _ALIAS.fullmatch(alias):
        raise BadArgument(
            at, f"{shown(alias)} can't be a name.", hint="Use letters, digits and underscores."
        )
    return Selected(term, alias, at)


def _names(given: Json, at: str) -> list[Name]:
    found = [(_bare(one, place), place) for one, place in _listed(given, at)]
    for term, place in found:
        if not isinstance(term, Name):
            raise BadArgument(place, "group by fields, not by aggregates.")
    return [term for term, _ in found if isinstance(term, Name)]


def _ordered(given: Json, at: str) -> Ordered:
    if isinstance(given, str):
        field, _, last = given.strip().rpartition(" ")
        if field and last.lower() in _DIRECTIONS:
            return Ordered(_bare(field, at), _DIRECTIONS[last.lower()], at)
        return Ordered(_bare(given, at), descending=False, at=at)
    if not isinstance(given, Mapping):
        raise BadArgument(at, "it is an object.", hint='{"field": "name", "direction": "desc"}.')
    members = _members(given, at, _IN_ORDER)
    direction = _text(members.get("direction") or "asc", f"{at}.direction").lower()
    if direction not in _DIRECTIONS:
        raise unknown(f"{at}.direction", "direction", direction, ("asc", "desc"))
    return Ordered(_bare(_needed(members, "field", at), at), _DIRECTIONS[direction], at)


def _bare(given: Json, at: str) -> Term:
    term, alias = _term(given, at)
    if alias is not None:
        raise BadArgument(at, 'names are given with "as" in select only.')
    return term


def _term(given: Json, at: str) -> tuple[Term, str | None]:
    """A field or an aggregate, and the name it is given."""
    text = _text(given, at, hint=_TERMS)[:400]
    if found := _SUMMARY.fullmatch(text):
        function = _FUNCTIONS.get(found[1].upper())
        if function is None:
            raise unknown(at, "aggregate", found[1], [one.value for one in Function])
        return _summary(function, found[3], bool(found[2]), at), found[4]
    if found := _FIELD.fullmatch(text):
        return Name(found[1]), found[2]
    raise BadArgument(at, f"{shown(given)} is no field.", hint=_TERMS)


def _summary(function: Function, field: str, distinct: bool, at: str) -> Summary:
    if distinct and function is not Function.COUNT:
        raise BadArgument(at, "only COUNT takes DISTINCT.")
    if field == "*" and (distinct or function is not Function.COUNT):
        raise BadArgument(at, f"only COUNT takes *; give {function} a field.")
    return Summary(function, None if field == "*" else Name(field), distinct)


def _conditions(given: Json, at: str, budget: _Budget) -> Conditions | None:
    """A tree of conditions; one that stands alone, or a list of them, means all of them."""
    if given is None or given in ({}, []):
        return None
    found = _part({"conditions": given} if isinstance(given, list) else given, at, budget, 1)
    return found if isinstance(found, Conditions) else Conditions(Logic.AND, (found,))


def _part(given: Json, at: str, budget: _Budget, depth: int) -> Condition | Conditions:
    if depth > MOST_DEPTH:
        raise BadArgument(at, f"conditions nest at most {MOST_DEPTH} deep.")
    if not isinstance(given, Mapping):
        hint = '{"field": "status", "operator": "=", "value": ["running"]}.'
        raise BadArgument(at, "a condition is an object.", hint=f"For example {hint}")
    members = _members(given, at, _IN_CONDITION)
    if "conditions" not in members:
        return _condition(members, at, budget)
    if "field" in members:
        raise BadArgument(at, "either field, operator and value, or logic and conditions.")
    inner = members["conditions"]
    if not isinstance(inner, list) or not inner:
        raise BadArgument(f"{at}.conditions", "it is a list with one condition or more.")
    parts = (_part(one, f"{at}.conditions[{n}]", budget, depth + 1) for n, one in enumerate(inner))
    return Conditions(_logic(members.get("logic"), f"{at}.logic"), tuple(parts))


def _condition(members: dict[str, Json], at: str, budget: _Budget) -> Condition:
    budget.condition(at)
    written = _text(_needed(members, "operator", at), f"{at}.operator")
    operator = _OPERATORS.get(plain(written.strip()))
    if operator is None:
        meant = _MEANT.get(plain(written.strip()), ())
        known = [one.value for one in Operator]
        raise unknown(f"{at}.operator", "operator", written, known, same=meant)
    values = _values(members, operator)
    budget.take(f"{at}.value", len(values))
    return Condition(_bare(_needed(members, "field", at), f"{at}.field"), operator, values, at)


def _values(members: Mapping[str, Json], operator: Operator) -> tuple[Json, ...]:
    """What is compared with; null stands for nothing only where nothing is wanted."""
    given = members.get("value", [])
    if given is None and operator.values == (0, 0):
        return ()
    return tuple(given) if isinstance(given, list) else (given,)


def _logic(given: Json, at: str) -> Logic:
    written = "and" if given is None else _text(given, at).lower()
    if written not in tuple(Logic):
        raise unknown(at, "logic", written, [one.value for one in Logic])
    return Logic(written)


def _needed(members: Mapping[str, Json], name: str, at: str) -> Json:
    if members.get(name) is None:
        raise BadArgument(f"{at}.{name}", "it is missing.")
    return members[name]


def _text(given: Json, at: str, hint: str = "") -> str:
    if not isinstance(given, str) or not given.strip():
        raise BadArgument(at, f"{shown(given)} is not text.", hint=hint)
    return given


def _flag(given: Json, at: str) -> bool:
    words = {"true": True, "false": False}
    flag = words.get(given.lower(), given) if isinstance(given, str) else given
    if not isinstance(flag, bool | None):
        raise BadArgument(at, f"{shown(given)} is not true or false.")
    return bool(flag)


def _count(given: Json, at: str, least: int) -> int:
    digits = isinstance(given, str) and re.fullmatch(r"\d{1,9}", given, re.ASCII)
    number = int(given) if digits else given
    if type(number) is not int or not least <= number <= _FAR:
        raise BadArgument(at, f"{shown(given)} is not a whole number from {least} on.")
    return number
