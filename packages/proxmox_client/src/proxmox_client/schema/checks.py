"""Validation of parameters against the schema, with the messages of Proxmox VE."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from proxmox_client.schema import property_strings
from proxmox_client.schema.formats import format_error
from proxmox_client.schema.parameter import Parameter

UNKNOWN: Final = (
    "property is not defined in schema and the schema does not allow additional properties"
)
MISSING: Final = "property is missing and it is not optional"

_SCALARS: Final = {
    "integer": re.compile(r"[+-]?\d+", re.ASCII),
    "number": re.compile(r"[+-]?(\d++\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII),
    "boolean": re.compile(r"[01]"),
}


def validate(
    definitions: Mapping[str, Parameter],
    find: Callable[[str], Parameter | None],
    values: Mapping[str, Any],
    *,
    additional: bool = False,
) -> dict[str, str]:
    """Validate parameters; return the messages by parameter name.

    `find` also resolves numbered names and aliases. `additional` accepts undefined parameters.
    """
    errors: dict[str, str] = {}
    for name, value in values.items():
        parameter = find(name)
        if parameter is None:
            if not additional:
                errors[name] = UNKNOWN
            continue
        errors |= _errors(parameter, name, value)
        if parameter.requires and parameter.requires not in values:
            errors.setdefault(parameter.requires, f"missing property required by '{name}'")
    for name, parameter in definitions.items():
        if not parameter.optional and name not in values:
            errors.setdefault(name, MISSING)
    return errors


def _errors(parameter: Parameter, name: str, value: Any) -> dict[str, str]:
    """Validate a value; those of a list have their position in the name, as in `vms[0]`."""
    values = {name: value}
    if parameter.type == "array" and parameter.items is not None:
        # a form sends a list with one item as a plain value
        items = value if isinstance(value, list | tuple) else [value]
        values = {f"{name}[{number}]": item for number, item in enumerate(items)}
        parameter = parameter.items
    errors = {key: _value_error(parameter, name, each) for key, each in values.items()}
    return {key: message for key, message in errors.items() if message}


def _value_error(parameter: Parameter, name: str, value: Any) -> str | None:
    """Validate one value; return the message, or None if it is valid."""
    if parameter.one_of:
        messages = [_value_error(choice, name, value) for choice in parameter.one_of]
        return None if None in messages else messages[0]
    if parameter.type == "array":
        # a form sends a list with one item as a plain value
        items = value if isinstance(value, list | tuple) else [value]
        if parameter.items is None:
            return None
        return next(
            filter(None, (_value_error(parameter.items, name, item) for item in items)), None
        )
    if isinstance(value, list) and (parameter.format or "").endswith("-list"):
        value = ",".join(map(_text, value))
    if isinstance(value, list | dict):
        return None if parameter.type == "object" else _type_error(parameter, value)
    text = _text(value)
    shape = _SCALARS.get(parameter.type)
    if shape is not None and not shape.fullmatch(text):
        return _type_error(parameter, text)
    return _text_error(parameter, name, text) or _range_error(parameter, text)


def _type_error(parameter: Parameter, value: Any) -> str:
    return f"type check ('{parameter.type}') failed - got '{value}'"


def _text(value: Any) -> str:
    """Convert a value to its text in a form."""
    return str(int(value)) if isinstance(value, bool) else str(value)


def _range_error(parameter: Parameter, text: str) -> str | None:
    if parameter.type in ("integer", "number"):
        number = float(text)
        if parameter.minimum is not None and number < parameter.minimum:
            return f"value must have a minimum value of {_number_text(parameter.minimum)}"
        if parameter.maximum is not None and number > parameter.maximum:
            return f"value must have a maximum value of {_number_text(parameter.maximum)}"
    if parameter.min_length is not None and len(text) < parameter.min_length:
        return f"value must be at least {parameter.min_length} characters long"
    if parameter.max_length is not None and len(text) > parameter.max_length:
        return f"value may only be {parameter.max_length} characters long"
    return None


def _number_text(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def _text_error(parameter: Parameter, name: str, text: str) -> str | None:
    if parameter.enum and text not in parameter.enum:
        listed = ", ".join(parameter.enum)
        return f"value '{text}' does not have a value in the enumeration '{listed}'"
    if parameter.pattern is not None and not compiled(parameter.pattern).fullmatch(text):
        return "value does not match the regex pattern"
    if parameter.parts is not None:
        return _parts_error(parameter.parts, name, text)
    message = format_error(parameter.format, text) if parameter.format else None
    return f"invalid format - {message}\n" if message else None


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern of the schema, without the separator of no characters that those of images
    allow: it matches nothing more, and takes exponential time.
    """
    return re.compile(pattern.replace("(?:[._]|__|[-]*)", "(?:[._]|__|[-]+)"))


def _parts_error(parts: Mapping[str, Parameter], name: str, text: str) -> str | None:
    try:
        values = property_strings.parse(text, parts)
    except property_strings.BadPropertyString as error:
        return f"invalid format - {error}\n"
    required = {key: part for key, part in parts.items() if not part.alias}
    errors = validate(required, parts.get, values)
    if not errors:
        return None
    lines = "".join(f"{name}.{part}: {message}\n" for part, message in sorted(errors.items()))
    return f"invalid format - format error\n{lines}"
