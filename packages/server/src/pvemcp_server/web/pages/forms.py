"""What forms send, as values: lists from text, arguments of a tool by their schema."""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel
from starlette.datastructures import FormData

from pvemcp_server.errors import BadArgument

_NUMBER: Final = re.compile(r"-?[0-9]{1,18}")  # Python itself refuses to read endless ones
_BOOLEANS: Final = {"true": True, "false": False}


def words(text: str) -> list[str]:
    """Names separated by spaces, commas or lines."""
    return text.replace(",", " ").split()


def text_of(form: FormData, name: str) -> str:
    """The field's text, empty when it was not sent."""
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""


def texts_of(form: FormData, name: str) -> list[str]:
    """All values of a field that may be sent several times."""
    return [value for value in form.getlist(name) if isinstance(value, str) and value]


def number(text: str) -> int | str:
    """The number that a field holds; a text that is none is for whoever checks it to refuse."""
    return int(text) if _NUMBER.fullmatch(text) else text


def fields_of(form: FormData, model: type[BaseModel]) -> dict[str, Any]:
    """Return the fields of a model that a form holds; a field that was left empty is left out.

    A list is sent as one text with spaces or commas, or with several values as `name[]`. A day
    stands for its last second, UTC.
    """
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        text, values = text_of(form, name), texts_of(form, f"{name}[]")
        if values:
            fields[name] = values
        elif text and get_origin(field.annotation) is list:
            fields[name] = words(text)
        elif text and datetime in (field.annotation, *get_args(field.annotation)):
            fields[name] = f"{text}T23:59:59Z"
        elif text:
            fields[name] = text
    return fields


def arguments_of(form: FormData, schema: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The arguments that a form holds; what was left empty is left out."""
    given = {name: text_of(form, f"{prefix}{name}") for name in schema["properties"]}
    return {
        name: _value(name, text, schema["properties"][name]) for name, text in given.items() if text
    }


def read_json(name: str, text: str) -> Any:
    """The value of a JSON text; raises BadArgument saying where it ends to be one."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as wrong:
        place = f"line {wrong.lineno}, column {wrong.colno}"
        raise BadArgument(name, f"is not JSON at {place}: {wrong.msg}.") from None


def _value(name: str, text: str, schema: Mapping[str, Any]) -> Any:
    match schema.get("type"):
        case "integer":
            return number(text)
        case "boolean":
            return _BOOLEANS.get(text, text)
        case "array":
            items = schema.get("items", {})
            return [_value(name, one, items) for one in words(text)]
        case "string":
            return text
        case _:
            return read_json(name, text)
