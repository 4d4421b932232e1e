"""JSON as the text it came as: read for what it means, passed on as it was written.

Numbers keep every digit and strings their escapes, because what is passed on is the original
text; parsing serves only to look inside.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

__all__ = ["BadJson", "Integer", "elements", "member", "one_line", "parse", "span", "with_member"]


class BadJson(ValueError):
    """The text is not JSON."""


class Integer(str):
    """The digits of an integer that is too long for Python to convert."""

    __slots__ = ()


def _no_constant(name: str) -> NoReturn:
    raise BadJson(f"{name} is not JSON")


def _integer(digits: str) -> int | Integer:
    return int(digits) if len(digits) < 4000 else Integer(digits)


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
_LONG_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_int=_integer)
_SPACE = re.compile(r"[ \t\r\n]*")


def parse(text: str) -> Any:
    """The value of a JSON text of any size, or BadJson."""
    try:
        return _DECODER.decode(text)
    except (json.JSONDecodeError, BadJson) as error:
        raise BadJson(str(error)) from None
    except RecursionError:
        raise BadJson("nested too deeply") from None
    except ValueError:  # an integer with more digits than Python converts
        return _LONG_DECODER.decode(text)


def one_line(text: str) -> str:
    """The same JSON without line ends, which stand only between its tokens."""
    return text.replace("\r", " ").replace("\n", " ")


def elements(text: str) -> Iterator[str]:
    """The texts of the elements of an array that `parse` has accepted."""
    at = _skip(text, text.index("[") + 1)
    while text[at] != "]":
        _, end = _LONG_DECODER.raw_decode(text, at)
        yield text[at:end]
        at = _skip(text, end)
        at = _skip(text, at + 1) if text[at] == "," else at


def member(text: str, name: str) -> str | None:
    """The text of a member of an object that `parse` has accepted."""
    found = span(text, name)
    return found and text[slice(*found)]


def with_member(text: str, name: str, value: str) -> str:
    """The object with one member's text replaced, or added when it was not there."""
    found = span(text, name)
    if found:
        return text[: found[0]] + value + text[found[1] :]
    start = text.index("{") + 1
    comma = "" if text[_skip(text, start)] == "}" else ","
    return f"{text[:start]}{json.dumps(name)}:{value}{comma}{text[start:]}"


def span(text: str, name: str) -> tuple[int, int] | None:
    """Where the value of a member stands in the text of an object that `parse` has accepted."""
    found = None
    at = _skip(text, text.index("{") + 1)
    while text[at] != "}":
        key, end = _LONG_DECODER.raw_decode(text, at)
        at = _skip(text, _skip(text, end) + 1)
        _, end = _LONG_DECODER.raw_decode(text, at)
        if key == name:
            found = at, end  # the last of equal names counts, as for every JSON parser
        at = _skip(text, end)
        at = _skip(text, at + 1) if text[at] == "," else at
    return found


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
