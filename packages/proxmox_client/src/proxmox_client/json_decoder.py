"""Decoding of response bodies to typed answers, with tolerance for Proxmox's varying types."""

import json
from functools import cache
from typing import Any, Generic, TypeVar, get_origin

import msgspec

T = TypeVar("T")


class Answer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base class of Proxmox's answers: frozen, and nearly every field may be absent."""


class Envelope(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """The object around every answer; `total` counts all rows when `data` is one page."""

    data: T
    total: int | None = None


def decode(body: bytes, answer: type[T]) -> Envelope[T]:
    """Decode a body; accept numbers in strings and 0/1 for booleans.

    A body that doesn't fit is decoded a second time with more tolerance, because Perl sends a
    number for text, and `null` or an empty string for a missing value. Raise msgspec.MsgspecError
    or ValueError when that fails too.
    """
    try:
        return _decoder(answer).decode(body)  # type: ignore[arg-type]  # a class is hashable
    except (msgspec.MsgspecError, UnicodeDecodeError):
        content = _json(body)
        if isinstance(content, dict) and content.get("data") is None:
            # an empty list or mapping is sent as null, or not at all
            kind = get_origin(answer)
            content = {**content, "data": kind() if kind in (list, dict) else None}
        return convert(content, _envelope(answer))


def _json(body: bytes) -> Any:
    """Return the content of a body; raise ValueError that says what is there instead of JSON."""
    try:
        return json.loads(body.decode(errors="replace"))
    except ValueError:
        kind = "a web page" if body.lstrip().startswith(b"<") else "no JSON"
        raise ValueError(f"it is {kind}, so it is not Proxmox VE that answered") from None


def convert(value: object, answer: type[T]) -> T:
    """Convert an already decoded value with the tolerance of `decode`."""
    try:
        return msgspec.convert(value, answer, strict=False)
    except msgspec.ValidationError:
        return msgspec.convert(_loosen(value), answer, strict=False)


@cache
def _decoder(answer: type[T]) -> "msgspec.json.Decoder[Envelope[T]]":
    return msgspec.json.Decoder(_envelope(answer), strict=False)


def _envelope(answer: type[T]) -> type[Envelope[T]]:
    return Envelope[answer]  # type: ignore[valid-type]  # a type made at run time


def _loosen(value: Any) -> Any:
    """Drop null and empty members, and turn numbers to text, which fits text and number fields."""
    if isinstance(value, dict):
        return {key: _loosen(v) for key, v in value.items() if v is not None and v != ""}
    if isinstance(value, list):
        return [_loosen(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    return str(value)
