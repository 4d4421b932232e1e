"""Parameters against their facts; what is wrong is said as Proxmox VE says it."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Final

from proxmox_client.schema import property_strings
from proxmox_client.schema.formats import complaint
from proxmox_client.schema.parameter import Parameter

UNKNOWN: Final = (
    "property is not defined in schema and the schema does not allow additional properties"
)
MISSING: Final = "property is missing and it is not optional"

_SCALARS: Final = {
    "integer": re.compile(r"[+-]?\d+", re.ASCII),
    "number": re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII),
    "boolean": re.compile(r"[01]"),
}


def errors_of(
    known: Mapping[str, Parameter],
    find: Callable[[str], Parameter | None],
    given: Mapping[str, Any],
    *,
    additional: bool = False,
) -> dict[str, str]:
    """What is wrong, by name of the parameter."""
    errors: dict[str, str] = {}
    for name, value in given.items():
        parameter = find(name)
        if parameter is None:
            if not additional:
                errors[name] = UNKNOWN
            continue
        if wrong := _wrong(parameter, name, value):
            errors[name] = wrong
        if parameter.requires and parameter.requires not in given:
            errors.setdefault(parameter.requires, f"missing property required by '{name}'")
    for name in _required(known):
        if name not in given:
            errors.setdefault(name, MISSING)
    return errors


def _required(known: Mapping[str, Parameter]) -> Iterable[str]:
    return (name for name, parameter in known.items() if not parameter.optional)


def _wrong(parameter: Parameter, name: str, value: Any) -> str | None:
    """What is wrong with one value, or None."""
    if parameter.one_of:
        found = [_wrong(choice, name, value) for choice in parameter.one_of]
        return None if None in found else found[0]
    if parameter.type == "array":
        return _wrong_items(parameter, name, value)
    if isinstance(value, list) and (parameter.format or "").endswith("-list"):
        value = ",".join(map(_text, value))
    if isinstance(value, list | dict):
        return None if parameter.type == "object" else _type_error(parameter, value)
    text = _text(value)
    shape = _SCALARS.get(parameter.type)
    if shape is not None and not shape.fullmatch(text):
        return _type_error(parameter, text)
    return _misshapen(parameter, name, text) or _out_of_bounds(parameter, text)


def _type_error(parameter: Parameter, value: Any) -> str:
    return f"type check ('{parameter.type}') failed - got '{value}'"


def _wrong_items(parameter: Parameter, name: str, value: Any) -> str | None:
    # A form sends a list of one as a plain value
    items = value if isinstance(value, list | tuple) else [value]
    if parameter.items is None:
        return None
    return next(filter(None, (_wrong(parameter.items, name, item) for item in items)), None)


def _text(value: Any) -> str:
    """A value as a form would carry it."""
    return str(int(value)) if isinstance(value, bool) else str(value)


def _out_of_bounds(parameter: Parameter, text: str) -> str | None:
    if parameter.type in ("integer", "number"):
        number = float(text)
        if parameter.minimum is not None and number < parameter.minimum:
            return f"value must have a minimum value of {_plain(parameter.minimum)}"
        if parameter.maximum is not None and number > parameter.maximum:
            return f"value must have a maximum value of {_plain(parameter.maximum)}"
    if parameter.min_length is not None and len(text) < parameter.min_length:
        return f"value must be at least {parameter.min_length} characters long"
    if parameter.max_length is not None and len(text) > parameter.max_length:
        return f"value may only be {parameter.max_length} characters long"
    return None


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def _misshapen(parameter: Parameter, name: str, text: str) -> str | None:
    if parameter.enum and text not in parameter.enum:
        listed = ", ".join(parameter.enum)
        return f"value '{text}' does not have a value in the enumeration '{listed}'"
    if parameter.pattern is not None and not _compiled(parameter.pattern).fullmatch(text):
        return "value does not match the regex pattern"
    if parameter.parts is not None:
        return _wrong_parts(parameter.parts, name, text)
    wrong = complaint(parameter.format, text) if parameter.format else None
    return f"invalid format - {wrong}\n" if wrong else None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _wrong_parts(parts: Mapping[str, Parameter], name: str, text: str) -> str | None:
    try:
        values = property_strings.parse(text, parts)
    except property_strings.BadPropertyString as problem:
        return f"invalid format - {problem}\n"
    required = {key: part for key, part in parts.items() if not part.alias}
    errors = errors_of(required, parts.get, values)
    if not errors:
        return None
    lines = "".join(f"{name}.{part}: {wrong}\n" for part, wrong in sorted(errors.items()))
    return f"invalid format - format error\n{lines}"
