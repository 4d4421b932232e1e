"""JSON as text: find and replace members without changing any other character.

The bridge forwards the original text of a message, so that ids of any size, digits of numbers and
escapes in strings arrive unchanged; it parses only to look inside. The standard library's decoder
does the parsing. This module adds what it lacks: the position of a value in the text.

No library replaces it. `msgspec.Raw` keeps the text of a member but not its position, which
`config_file` needs to leave comments in place and `with_member` needs to keep the spacing; it would
also be one more compiled dependency to load at each start. Encoding the parsed value again would
change numbers and escapes.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

__all__ = [
    "BadJson",
    "Integer",
    "as_object",
    "elements",
    "member",
    "one_line",
    "parse",
    "span",
    "with_member",
]


class BadJson(ValueError):
    """The text is not JSON."""


class Integer(str):
    """Digits of an integer that is too long for Python to convert."""

    __slots__ = ()


def _reject_constant(name: str) -> NoReturn:
    raise BadJson(f"{name} is not JSON")


def _integer(digits: str) -> int | Integer:
    return int(digits) if len(digits) < 4000 else Integer(digits)


_DECODER = json.JSONDecoder(parse_constant=_reject_constant)
_LONG_DECODER = json.JSONDecoder(parse_constant=_reject_constant, parse_int=_integer)
_SPACE = re.compile(r"[ \t\r\n]*")


def parse(text: str) -> Any:
    """Return the value of a JSON text of any size; raise BadJson when it is none."""
    try:
        try:
            return _DECODER.decode(text)
        except (json.JSONDecodeError, BadJson):
            raise
        except ValueError:  # an integer with more digits than Python converts
            return _LONG_DECODER.decode(text)
    except ValueError as error:
        raise BadJson(str(error)) from None
    except RecursionError:
        raise BadJson("nested too deeply") from None


def as_object(value: Any) -> Mapping[str, Any]:
    """Return the value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def one_line(text: str) -> str:
    """Return the same JSON on one line; in JSON, line ends only occur between tokens."""
    return text.replace("\r", " ").replace("\n", " ")


def elements(text: str) -> Iterator[str]:
    """Yield the text of each element of an array that `parse` has accepted."""
    at = _skip_space(text, text.index("[") + 1)
    while text[at] != "]":
        _, end = _LONG_DECODER.raw_decode(text, at)
        yield text[at:end]
        at = _skip_space(text, end)
        at = _skip_space(text, at + 1) if text[at] == "," else at


def member(text: str, name: str) -> str | None:
    """Return the text of a member of an object that `parse` has accepted; None if it is missing."""
    position = span(text, name)
    return position and text[slice(*position)]


def with_member(text: str, name: str, value: str) -> str:
    """Return the object with the text of one member replaced, or added as the first one."""
    if position := span(text, name):
        return text[: position[0]] + value + text[position[1] :]
    start = text.index("{") + 1
    comma = "" if text[_skip_space(text, start)] == "}" else ","
    return f"{text[:start]}{json.dumps(name)}:{value}{comma}{text[start:]}"


def span(text: str, name: str) -> tuple[int, int] | None:
    """Return start and end of a member's value in the text of an object that `parse` has accepted.

    Of members with the same name the last one counts, as in every JSON parser.
    """
    position = None
    at = _skip_space(text, text.index("{") + 1)
    while text[at] != "}":
        key, end = _LONG_DECODER.raw_decode(text, at)
        at = _skip_space(text, _skip_space(text, end) + 1)
        _, end = _LONG_DECODER.raw_decode(text, at)
        if key == name:
            position = at, end
        at = _skip_space(text, end)
        at = _skip_space(text, at + 1) if text[at] == "," else at
    return position


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
