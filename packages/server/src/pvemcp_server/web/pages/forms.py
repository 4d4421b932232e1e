"""Values from forms: lists from text, a tool's arguments by their schema."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, get_origin

from pydantic import BaseModel
from starlette.datastructures import FormData

from pvemcp_server.errors import BadArgument

_NUMBER: Final = re.compile(r"-?[0-9]{1,18}")  # Python refuses to parse longer ones
_BOOLEANS: Final = {"true": True, "false": False}


def words(text: str) -> list[str]:
    """Split names at spaces, commas and line breaks."""
    return text.replace(",", " ").split()


def lines(text: str) -> list[str]:
    """Split entries that may have blanks and commas in them at line breaks."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def text_of(form: FormData, name: str) -> str:
    """Return the text of a field; empty when the form has none."""
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""


def texts_of(form: FormData, name: str) -> list[str]:
    """Return all values of a field that may occur several times."""
    return [value for value in form.getlist(name) if isinstance(value, str) and value]


def number(text: str) -> int | str:
    """Convert a text to a number; return other texts unchanged, for the validation to refuse."""
    return int(text) if _NUMBER.fullmatch(text) else text


def fields_of(form: FormData, model: type[BaseModel]) -> dict[str, Any]:
    """Return the fields of a model that a form holds; a field that was left empty is left out.

    A list is sent as one text with spaces or commas, or with several values as `name[]`.
    """
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        text, values = text_of(form, name), texts_of(form, f"{name}[]")
        if values:
            fields[name] = values
        elif text and get_origin(field.annotation) is list:
            fields[name] = words(text)
        elif text:
            fields[name] = text
    return fields


def arguments_of(form: FormData, schema: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Read a tool's arguments from a form; empty fields are omitted."""
    texts = {name: text_of(form, f"{prefix}{name}") for name in schema["properties"]}
    return {
        name: _value(name, text, schema["properties"][name]) for name, text in texts.items() if text
    }


def read_json(name: str, text: str) -> Any:
    """Parse JSON; raise BadArgument with the position of the error."""
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadArgument(name, "has a lone surrogate, which is no character.") from None
    except json.JSONDecodeError as error:
        position = f"line {error.lineno}, column {error.colno}"
        raise BadArgument(name, f"is not JSON at {position}: {error.msg}.") from None
    except RecursionError:
        raise BadArgument(name, "is nested too deeply.") from None
    except ValueError:  # more digits than Python converts
        raise BadArgument(name, "has a number that is too long.") from None
    return value


def _value(name: str, text: str, schema: Mapping[str, Any]) -> Any:
    match schema.get("type"):
        case "integer":
            return number(text)
        case "boolean":
            return _BOOLEANS.get(text, text)
        case "array":
            items = schema.get("items", {})
            return [_value(name, word, items) for word in words(text)]
        case "string":
            return text
        case _:
            return read_json(name, text)
