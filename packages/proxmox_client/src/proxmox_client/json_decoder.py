"""Bodies of Proxmox to typed answers, also where Proxmox's types waver."""

import json
from functools import cache
from typing import Any, Generic, TypeVar, get_origin

import msgspec

T = TypeVar("T")

Scalar = str | int | float | bool | None


class Answer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The base of what Proxmox tells: frozen, and nearly every field may be absent."""


class Envelope(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """What Proxmox wraps every answer in; `total` counts rows beyond a page."""

    data: T
    total: int | None = None


def decode(body: bytes, answer: type[T]) -> Envelope[T]:
    """Decode a body; numbers in strings and 0/1 for booleans are understood.

    A body that doesn't fit is read a second time, tolerantly: Perl sends a number where text is
    meant, `null` or an empty string where a value is missing.
    """
    try:
        return _decoder(answer).decode(body)  # type: ignore[arg-type]  # a class is hashable
    except (msgspec.MsgspecError, UnicodeDecodeError):
        told = json.loads(body.decode(errors="replace"))
        return convert(_completed(told, answer), _envelope(answer))


def convert(raw: object, answer: type[T]) -> T:
    """Read an already decoded value as tolerantly as `decode` does."""
    try:
        return msgspec.convert(raw, answer, strict=False)
    except msgspec.ValidationError:
        return msgspec.convert(_loosened(raw), answer, strict=False)


@cache
def _decoder(answer: type[T]) -> "msgspec.json.Decoder[Envelope[T]]":
    return msgspec.json.Decoder(_envelope(answer), strict=False)


def _envelope(answer: type[T]) -> type[Envelope[T]]:
    return Envelope[answer]  # type: ignore[valid-type]  # a type made at run time


def _completed(told: Any, answer: Any) -> Any:
    """The envelope with data in it: nothing stands for an empty list or mapping."""
    if not isinstance(told, dict) or told.get("data") is not None:
        return told
    kind = get_origin(answer)
    return {**told, "data": kind() if kind in (list, dict) else None}


def _loosened(value: Any) -> Any:
    """The value with numbers as text, which fits both, and without what is null or empty."""
    if isinstance(value, dict):
        return {key: _loosened(v) for key, v in value.items() if v is not None and v != ""}
    if isinstance(value, list):
        return [_loosened(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    return str(value)
