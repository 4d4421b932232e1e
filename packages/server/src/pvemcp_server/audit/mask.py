"""Takes secrets out of arguments before anything is written down."""

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, SecretBytes, SecretStr

from pvemcp_server.store.key_format import KEY_LIKE, PREFIX

MASK = "***"
DEEPEST: Final = 32  # levels; no argument of ours has more, and some hundred would end the call
# the length of a scheme is bounded, or a long word would be searched from each of its letters
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s\"'<>]+")
# most texts hold nothing of the kind, and every call records a dozen of them
SUSPECT = re.compile(rf"://|{PREFIX}_|PVEAPIToken=", re.IGNORECASE)
PROXMOX_TOKEN = re.compile(r"(PVEAPIToken=[^\s=]+=)\S+", re.IGNORECASE)


def mask(value: Any, secret_fields: Collection[str] = (), levels: int = DEEPEST) -> Any:
    """The value without its secrets: declared fields, our keys, and what URLs carry beyond a path.

    `secret_fields` are names of arguments, at any depth; `secret_fields_of` finds those of a model.
    What is nested deeper than `levels` is masked as a whole. Masking twice is masking once.
    """
    if isinstance(value, Mapping):
        return {
            mask_text(str(name)): MASK
            if name in secret_fields or not levels
            else mask(inner, secret_fields, levels - 1)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [mask(one, secret_fields, levels - 1) if levels else MASK for one in value]
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, SecretStr | SecretBytes):
        return MASK
    return value


@cache
def secret_fields_of(model: type[BaseModel]) -> frozenset[str]:
    """The names of the model's fields that are declared secret, by SecretStr or `writeOnly`."""
    return frozenset(_secret_names(model.model_json_schema()))


def mask_text(text: str) -> str:
    """The text with our keys, Proxmox tokens and the secrets of URLs replaced."""
    if not SUSPECT.search(text):
        return text
    text = PROXMOX_TOKEN.sub(rf"\1{MASK}", text)
    text = KEY_LIKE.sub(rf"\1{MASK}", text)
    return URL.sub(lambda found: _mask_url(found.group()), text)


def _mask_url(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:  # not a URL after all, but it began like one
        return MASK
    _, at, host = parts.netloc.rpartition("@")
    netloc = f"{MASK}@{host}" if at else host
    query, fragment = (MASK if secret else "" for secret in (parts.query, parts.fragment))
    return urlunsplit((parts.scheme, netloc, parts.path, query, fragment))


def _secret_names(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for inner in schema:
            yield from _secret_names(inner)
    elif isinstance(schema, dict):
        for name, inner in schema.get("properties", {}).items():
            if _is_secret(inner):
                yield name
        for inner in schema.values():
            yield from _secret_names(inner)


def _is_secret(schema: Mapping[str, Any]) -> bool:
    """Also one of several types is enough: an optional secret is a secret."""
    return bool(schema.get("writeOnly")) or any(map(_is_secret, schema.get("anyOf", ())))
