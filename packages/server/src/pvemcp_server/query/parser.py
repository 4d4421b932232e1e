"""Parses a query as models write it: an object or JSON text, names in any case, bare values."""

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from pvemcp_server.errors import BadArgument, folded
from pvemcp_server.query.json_text import decoded, is_absent
from pvemcp_server.query.model import (
    AggregateTerm,
    Condition,
    ConditionGroup,
    Existence,
    FieldTerm,
    LimitPer,
    Query,
    Selection,
    SortKey,
    Term,
)
from pvemcp_server.query.names import abbreviated, unknown_name
from pvemcp_server.query.operators import (
    FUNCTION_ALIASES,
    MAX_VALUES,
    OPERATOR_ALIASES,
    OPERATOR_SUGGESTIONS,
    PARTS_OF_TEXT,
    Function,
    Logic,
    Operator,
    Span,
)

MAX_CONDITIONS: Final = 64
MAX_DEPTH: Final = 6
MAX_COLUMNS: Final = 60
MAX_TEXT: Final = 100_000  # characters of a query written as text

Json = Any

_MAX_OFFSET: Final = 1_000_000_000
_PARTS: Final = (
    "from", "select", "where", "groupBy", "having", "orderBy", "distinct", "limit", "limitPer",
    "offset",
)  # fmt: skip
_WORDS_FOR_LIMIT_PER: Final = frozenset({
    "limitby", "limiteach", "limitpergroup", "over", "partitionby", "pergroup", "qualify",
    "rownumber", "top", "topn", "topnpergroup", "topper", "toppergroup", "window",
})  # fmt: skip
"""Names that other query languages have for limitPer, folded."""
_LIMIT_PER_PARTS: Final = ("fields", "count")
_OTHER_LIMIT_PER_PARTS: Final = {
    "by": "fields", "field": "fields", "groupby": "fields", "partitionby": "fields",
    "per": "fields", "limit": "count", "n": "count", "rows": "count", "top": "count",
}  # fmt: skip
_CONDITION_PARTS: Final = ("field", "operator", "value", "valueField", "logic", "conditions")
_OTHER_PARTS: Final = {
    "op": "operator", "comparison": "operator", "column": "field", "values": "value",
}  # fmt: skip
"""Names that other query languages have for the parts of a condition."""
_COMPARISONS: Final = {
    "eq": Operator.EQUAL, "ne": Operator.UNEQUAL, "gt": Operator.GREATER, "gte": Operator.AT_LEAST,
    "lt": Operator.LESS, "lte": Operator.AT_MOST, "in": Operator.IN,
}  # fmt: skip
_FORM: Final = '{"field": "status", "operator": "=", "value": […]}'
_MAX_FORM: Final = 400  # characters of a condition in an error
_ORDER_PARTS: Final = ("field", "direction")
_EXAMPLE: Final = (
    'For example {"from": "guests", "select": ["name"], '
    '"where": {"field": "status", "operator": "=", "value": "running"}}.'
)
_CONDITION_EXAMPLE: Final = (
    'For example {"field": "status", "operator": "=", "value": ["running"]}.'
)
_EXISTENCE_EXAMPLE: Final = (
    'For example {"field": "backups", "operator": "NOT EXISTS", "conditions": '
    '[{"field": "creation", "operator": ">", "value": ["-7d"]}]}.'
)
_TERM_EXAMPLE: Final = (
    'Write "name", "node.status", "COUNT(*) as n" or "COUNT(DISTINCT node) as nodes", one by one.'
)
_HINTS_ON_FORMS: Final = (
    (
        re.compile(r"\bover\s*\(", re.IGNORECASE),
        'For the first rows of each write "limitPer": {"fields": ["node"], "count": 3}.',
    ),
    (
        re.compile(r"\b(?:date|time|strftime|to_char|trunc|extract)\w*\s*\(", re.IGNORECASE),
        'Round times by HOUR, DAY or WEEK, such as "DAY(start_time) as day".',
    ),
)
"""How to write what SQL has functions for."""
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_. -]{0,119}"
_LONGEST_SHOWN: Final = 100  # characters of a field in an example
_FIELD: Final = re.compile(rf"\s*({_NAME}?)(?:\s+as\s+(\S(?:.*\S)?))?\s*", re.ASCII | re.IGNORECASE)
_AGGREGATE: Final = re.compile(
    rf"\s*([A-Za-z]+)\s*\(\s*(distinct\s+)?(\*|{_NAME}?)\s*\)(?:\s+as\s+(\S(?:.*\S)?))?\s*",
    re.ASCII | re.IGNORECASE,
)
_ALIAS: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", re.ASCII)
_DESCENDING: Final = {"asc": False, "ascending": False, "desc": True, "descending": True}
_OPERATORS: Final = {folded(operator): operator for operator in Operator} | {
    folded(alias): operator for alias, operator in OPERATOR_ALIASES.items()
}
_TEXTUAL: Final = (*PARTS_OF_TEXT, Operator.NOT_CONTAINS)
_SUGGESTIONS: Final = {folded(name): those for name, those in OPERATOR_SUGGESTIONS.items()}
_FUNCTION_SUGGESTIONS: Final = {
    "PERCENT": (Function.SHARE,), "PERCENTAGE": (Function.SHARE,), "RATIO": (Function.SHARE,),
    "MEAN": (Function.AVERAGE,), "TOTAL": (Function.SUM,),
}  # fmt: skip
_FUNCTIONS: Final = {function.value: function for function in Function} | FUNCTION_ALIASES


def parse(source: Json) -> Query:
    """Parse a query, an object or its JSON text; raise BadArgument that names the wrong place."""
    if isinstance(source, str):
        source = _decode(source)
    if not isinstance(source, Mapping):
        raise BadArgument("query", "it is an object.", hint=_EXAMPLE)
    parts = {
        name: part
        for name, part in _members(source, "query", _PARTS).items()
        if not is_absent(part)
    }
    if "from" not in parts:
        raise BadArgument("from", "say which table.", hint='For example {"from": "guests"}.')
    conditions = _ConditionParser()
    everything, select = _select(parts.get("select"))
    return Query(
        table=_text(parts["from"], "from"),
        select=select,
        everything=everything,
        where=conditions.parse(parts.get("where"), "where"),
        group_by=tuple(
            _group(entry, at) for entry, at in _entries(parts.get("groupBy"), "groupBy")
        ),
        having=conditions.parse(parts.get("having"), "having"),
        order_by=tuple(_sort(entry, at) for entry, at in _entries(parts.get("orderBy"), "orderBy")),
        distinct=_flag(parts.get("distinct"), "distinct"),
        limit_per=_limit_per(parts.get("limitPer")),
        # some write 0 for no limit
        limit=_count(parts["limit"], "limit", 1) if parts.get("limit", 0) not in (0, "0") else None,
        offset=_count(parts.get("offset", 0), "offset", 0),
    )


def _decode(text: str) -> Json:
    if len(text) > MAX_TEXT:
        raise BadArgument("query", f"it has at most {MAX_TEXT} characters.")
    query = decoded(text)
    if not isinstance(query, str):
        return query
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        fact = f"this is not JSON: {error.msg} at {place}."
        raise BadArgument("query", fact, hint=_EXAMPLE) from error
    except RecursionError as error:
        raise BadArgument("query", "it is nested too deeply.") from error
    except ValueError as error:  # more digits than Python converts
        raise BadArgument("query", "it has a number that is too long.") from error


class _ConditionParser:
    """Parses the condition trees of one query, which share the limits on conditions and values."""

    def __init__(self) -> None:
        self._conditions = 0
        self._values = 0

    def parse(self, tree: Json, at: str) -> ConditionGroup | None:
        """Parse where or having; a single condition or a bare list means all of them."""
        tree = decoded(tree)
        node = self._node({"conditions": tree} if isinstance(tree, list) else tree, at, depth=1)
        return node if isinstance(node, ConditionGroup | None) else _all_of(node)

    def _node(
        self, node: Json, at: str, depth: int
    ) -> Condition | Existence | ConditionGroup | None:
        """Parse a condition or a group of them; a group without conditions is None."""
        if depth > MAX_DEPTH:
            raise BadArgument(at, f"conditions nest at most {MAX_DEPTH} deep.")
        node = decoded(node)
        if is_absent(node):
            return None
        if not isinstance(node, Mapping):
            raise BadArgument(at, "a condition is an object.", hint=_CONDITION_EXAMPLE)
        if form := _corrected(node):
            raise BadArgument(at, f"{abbreviated(node)} is no condition.", hint=f"Write {form}.")
        members = _members(node, at, _CONDITION_PARTS, {"where": "conditions"})
        given = {name for name, member in members.items() if not is_absent(member)}
        if _tests_rows(members.get("operator")):
            return self._existence(members, at, depth)
        if "conditions" not in given:
            is_group = "conditions" in members or "logic" in given
            return None if is_group and not given - {"logic"} else self._condition(members, at)
        if "field" in given:
            raise BadArgument(at, "either field, operator and value, or logic and conditions.")
        parts = (
            self._node(part, place, depth + 1)
            for part, place in _listed(members["conditions"], f"{at}.conditions")
        )
        logic = members["logic"] if "logic" in given else Logic.AND.value
        word = _text(logic, f"{at}.logic").lower()
        if word not in tuple(Logic):
            raise unknown_name(f"{at}.logic", "logic", word, [known.value for known in Logic])
        conditions = tuple(part for part in parts if part is not None)
        return ConditionGroup(Logic(word), conditions) if conditions else None

    def _existence(self, members: Mapping[str, Json], at: str, depth: int) -> Existence:
        """Parse a test for related rows; its conditions are about their fields."""
        self._count(at)
        operator = _OPERATORS[folded(members["operator"].strip())]
        if not is_absent(members.get("value")):
            fact = f"{operator} takes conditions, not a value."
            raise BadArgument(f"{at}.value", fact, hint=_EXISTENCE_EXAMPLE)
        group = {name: members[name] for name in ("logic", "conditions") if name in members}
        where = self._node(group, at, depth)
        return Existence(
            _text(_required(members, "field", at), f"{at}.field"),
            operator is Operator.NOT_EXISTS,
            where if isinstance(where, ConditionGroup | None) else _all_of(where),
            at,
        )

    def _count(self, at: str) -> None:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise BadArgument(at, f"a query has at most {MAX_CONDITIONS} conditions.")

    def _condition(self, members: Mapping[str, Json], at: str) -> Condition:
        self._count(at)
        word = _text(_required(members, "operator", at), f"{at}.operator")
        operator = _OPERATORS.get(folded(word.strip()))
        if operator is None:
            suggestions = _SUGGESTIONS.get(folded(word.strip()), ())
            known = [operator.value for operator in Operator]
            raise unknown_name(f"{at}.operator", "operator", word, known, suggestions=suggestions)
        value, other = members.get("value", []), members.get("valueField")
        if is_absent(other) and (inner := _field_as_value(value)):
            value, other = [], inner
        values = () if is_absent(value) and not is_absent(other) else _values(value, operator)
        self._values += len(values)
        if self._values > MAX_VALUES:
            raise BadArgument(f"{at}.value", f"a query compares with at most {MAX_VALUES} values.")
        term = _term_without_alias(_required(members, "field", at), f"{at}.field")
        compared = None if is_absent(other) else _term_without_alias(other, f"{at}.valueField")
        return Condition(term, operator, values, at, compared)


def _corrected(node: Mapping[str, Json]) -> str:
    """Return how to write a condition that has another common form; "" for all others.

    Those are {"and": […]}, {"op": …} for the operator, and a map of fields to values.
    """
    names = {folded(str(key).removeprefix("$")): value for key, value in node.items()}
    if len(names) == 1 and (logic := next(iter(names))) in tuple(Logic):
        return f'{{"logic": "{logic}", "conditions": […]}}'
    known = {folded(name): name for name in _CONDITION_PARTS}
    parts = {_OTHER_PARTS.get(name, name): value for name, value in names.items()}
    if parts != names and parts.keys() <= known.keys():
        form = {known[name]: value for name, value in parts.items()}
    elif names.keys().isdisjoint({*known, *_OTHER_PARTS}):
        every = [_condition_of_pair(str(name), value) for name, value in node.items()]
        form = every[0] if len(every) == 1 else {"conditions": every}
    else:
        return ""
    text = json.dumps(form, ensure_ascii=False)
    return text if len(text) <= _MAX_FORM else _FORM


def _condition_of_pair(field: str, value: Json) -> dict[str, Json]:
    """Return the condition that an entry of a map stands for: "node": "pve1", "cpu": {"$gt": 5}."""
    operator = Operator.IN if isinstance(value, list) else Operator.EQUAL
    if isinstance(value, Mapping) and len(value) == 1:
        ((word, value),) = value.items()
        operator = _COMPARISONS.get(str(word).strip("$").lower(), operator)
    values = value if isinstance(value, list) else [value]
    return {"field": field, "operator": operator.value, "value": values}


def _tests_rows(word: Json) -> bool:
    operator = _OPERATORS.get(folded(word.strip())) if isinstance(word, str) else None
    return operator is not None and operator.tests_rows


def _all_of(condition: Condition | Existence) -> ConditionGroup:
    return ConditionGroup(Logic.AND, (condition,))


def _members(
    source: Mapping[str, Json],
    at: str,
    known: tuple[str, ...],
    others: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Json]:
    """Return the object's members by their declared names; raise for unknown or repeated ones.

    `others` are folded names that are read as declared ones.
    """
    declared = {**others, **{folded(name): name for name in known}}
    members: dict[str, Json] = {}
    for key, value in source.items():
        name = declared.get(folded(str(key)))
        if name is None:
            means_limit_per = "limitPer" in known and folded(str(key)) in _WORDS_FOR_LIMIT_PER
            suggestions = ("limitPer",) if means_limit_per else ()
            raise unknown_name(at, "part", str(key), known, suggestions=suggestions)
        if name in members:
            raise BadArgument(f"{at}.{name}", "it is there twice.")
        members[name] = value
    return members


def _entries(value: Json, at: str) -> list[tuple[Json, str]]:
    """Return the entries of a list with their places, without empty ones.

    A list may be written as its JSON text or with commas, and a single entry without a list.
    """
    value = decoded(value)
    if isinstance(value, str) and "," in value:
        value = value.split(",")
    entries = [(entry, place) for entry, place in _listed(value, at) if not is_absent(entry)]
    if len(entries) > MAX_COLUMNS:
        raise BadArgument(at, f"at most {MAX_COLUMNS} entries.")
    return entries


def _listed(value: Json, at: str) -> list[tuple[Json, str]]:
    """Return the entries of a list, or of its JSON text, with their places; or the only one."""
    value = decoded(value)
    if not isinstance(value, list):
        return [(value, at)]
    return [(entry, f"{at}[{n}]") for n, entry in enumerate(value)]


def _values(value: Json, operator: Operator) -> tuple[Json, ...]:
    """Return the values to compare with; a list may be its JSON text.

    Where parts of texts are compared, [100] may be such a part: there only a list of texts is read.
    """
    if is_absent(value) and operator.arity == (0, 0):
        return ()
    listed = decoded(value)
    if isinstance(value, str) and operator in _TEXTUAL and not _are_texts(listed):
        return (value,)
    return tuple(listed) if isinstance(listed, list) else (value,)


def _field_as_value(value: Json) -> Json:
    """Return the field of a value written as {"field": name}; None for other values."""
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    return value["field"] if isinstance(value, Mapping) and set(value) == {"field"} else None


def _are_texts(entries: Json) -> bool:
    return isinstance(entries, list) and all(isinstance(entry, str) for entry in entries)


def _select(value: Json) -> tuple[bool, tuple[Selection, ...]]:
    entries = _entries(value, "select")
    if any(isinstance(entry, str) and entry.strip() == "*" for entry, _ in entries):
        if len(entries) > 1:
            raise BadArgument("select", '"*" stands alone.', hint="Leave it out, or all others.")
        return True, ()
    selections = []
    for entry, at in entries:
        term, alias = _term(entry, at)
        if alias is not None and not _ALIAS.fullmatch(alias):
            fact = f"{abbreviated(alias)} can't be a name."
            raise BadArgument(at, fact, hint="Use letters, digits and underscores.")
        selections.append(Selection(term, alias, at))
    return False, tuple(selections)


def _group(entry: Json, at: str) -> FieldTerm:
    term = _term_without_alias(entry, at)
    if not isinstance(term, FieldTerm):
        raise BadArgument(at, "group by fields, not by aggregates.")
    return term


def _sort(entry: Json, at: str) -> SortKey:
    """Parse an entry of orderBy: an object, "name" or "name desc"."""
    entry = decoded(entry)
    if isinstance(entry, str):
        name, _, last = entry.strip().rpartition(" ")
        if name and last.lower() in _DESCENDING:
            return SortKey(_term_without_alias(name, at), _DESCENDING[last.lower()], at)
        return SortKey(_term_without_alias(entry, at), descending=False, at=at)
    if not isinstance(entry, Mapping):
        raise BadArgument(at, "it is an object.", hint='{"field": "name", "direction": "desc"}.')
    members = _members(entry, at, _ORDER_PARTS)
    direction = _text(members.get("direction") or "asc", f"{at}.direction").lower()
    if direction not in _DESCENDING:
        raise unknown_name(f"{at}.direction", "direction", direction, ("asc", "desc"))
    term = _term_without_alias(_required(members, "field", at), at)
    return SortKey(term, _DESCENDING[direction], at)


def _limit_per(value: Json) -> LimitPer | None:
    """Parse limitPer: {"fields": […], "count": n}; its error shows how to write other forms."""
    at, value = "limitPer", decoded(value)
    if is_absent(value):
        return None
    if not isinstance(value, Mapping) or _is_count_of_field(value):
        raise BadArgument(at, "it is fields and a count.", hint=_limit_per_example(value))
    members = _members(value, at, _LIMIT_PER_PARTS, _OTHER_LIMIT_PER_PARTS)
    fields = tuple(
        _group(entry, place) for entry, place in _entries(members.get("fields"), f"{at}.fields")
    )
    if not fields or is_absent(members.get("count")):
        missing = "count" if fields else "fields"
        hint = _limit_per_example(members.get("fields"))
        raise BadArgument(f"{at}.{missing}", "it is missing.", hint=hint)
    return LimitPer(fields, _count(members["count"], f"{at}.count", 1))


def _is_count_of_field(value: Mapping[str, Json]) -> bool:
    """Return whether it is written as {"node": 3}."""
    known = {*_LIMIT_PER_PARTS, *_OTHER_LIMIT_PER_PARTS}
    return len(value) == 1 and folded(str(next(iter(value)))) not in known


def _limit_per_example(value: Json) -> str:
    """Return how to write limitPer, with the caller's fields and count where they can be read."""
    fields, count = value, 3
    if isinstance(value, Mapping):
        ((fields, number),) = value.items()
        count = number if type(number) is int else count
    fields = fields.split(",") if isinstance(fields, str) else fields
    listed = fields if isinstance(fields, list) else []
    short = (name for name in listed if isinstance(name, str) and len(name) <= _LONGEST_SHOWN)
    names = [name.strip() for name in short if _FIELD.fullmatch(name)]
    form = json.dumps({"fields": names or ["node"], "count": count})
    return f'Write "limitPer": {form}.'


def _term_without_alias(value: Json, at: str) -> Term:
    term, alias = _term(value, at)
    if alias is not None:
        raise BadArgument(at, 'names are given with "as" in select only.')
    return term


def _term(value: Json, at: str) -> tuple[Term, str | None]:
    """Parse a field or an aggregate, and the alias after "as"."""
    text = _text(value, at, hint=_TERM_EXAMPLE)[:400]
    if match := _AGGREGATE.fullmatch(text):
        function = _FUNCTIONS.get(match[1].upper())
        name, distinct = match[3], bool(match[2])
        if match[1].upper() in tuple(Span) and not distinct and name != "*":
            return FieldTerm(name, Span(match[1].upper())), match[4]
        if function is None:
            known = [*(each.value for each in Function), *(span.value for span in Span)]
            meant = _FUNCTION_SUGGESTIONS.get(match[1].upper(), ())
            raise unknown_name(at, "aggregate", match[1], known, suggestions=meant)
        if distinct and function is not Function.COUNT:
            raise BadArgument(at, "only COUNT takes DISTINCT.")
        if name == "*" and (distinct or function not in (Function.COUNT, Function.SHARE)):
            raise BadArgument(at, f"only COUNT and SHARE take *; give {function} a field.")
        field = None if name == "*" else FieldTerm(name)
        return AggregateTerm(function, field, distinct), match[4]
    if match := _FIELD.fullmatch(text):
        return FieldTerm(match[1]), match[2]
    hints = (hint for form, hint in _HINTS_ON_FORMS if form.search(text))
    hint = next(hints, _TERM_EXAMPLE)
    raise BadArgument(at, f"{abbreviated(value)} is no field.", hint=hint)


def _required(members: Mapping[str, Json], name: str, at: str) -> Json:
    if members.get(name) is None:
        raise BadArgument(f"{at}.{name}", "it is missing.")
    return members[name]


def _text(value: Json, at: str, hint: str = "") -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadArgument(at, f"{abbreviated(value)} is not text.", hint=hint)
    return value


def _flag(value: Json, at: str) -> bool:
    words = {"true": True, "false": False}
    flag = words.get(value.lower(), value) if isinstance(value, str) else value
    if not isinstance(flag, bool | None):
        raise BadArgument(at, f"{abbreviated(value)} is not true or false.")
    return bool(flag)


def _count(value: Json, at: str, least: int) -> int:
    digits = isinstance(value, str) and re.fullmatch(r"\d{1,9}", value, re.ASCII)
    number = int(value) if digits else value
    if type(number) is not int or not least <= number <= _MAX_OFFSET:
        raise BadArgument(at, f"{abbreviated(value)} is not a whole number from {least} on.")
    return number
