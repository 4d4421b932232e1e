"""Masking of secrets in arguments and texts before they are stored."""

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from math import isfinite
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, SecretBytes, SecretStr

from pvemcp_server.store.key_format import KEY_LIKE, PREFIX

MASK = "***"
DEEPEST: Final = 32  # levels of nesting; no argument has more, and hundreds exceed the stack
# the length of a scheme is bounded; otherwise a long word takes quadratic time
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s\"'<>]+")
# a quick test, because most texts contain no secret
SUSPECT = re.compile(rf"://|{PREFIX}_|PVEAPIToken=|password=", re.IGNORECASE)
PASSWORD = re.compile(r"(password=)\S+", re.IGNORECASE)
PROXMOX_TOKEN = re.compile(r"(PVEAPIToken=[^\s=]+=)\S+", re.IGNORECASE)


def mask(value: Any, secret_fields: Collection[str] = (), levels: int = DEEPEST) -> Any:
    """Mask secrets: declared fields, API keys, and user, query and fragment of URLs.

    `secret_fields` are names of arguments, at any depth; `secret_fields_of` returns those of a
    model. Values nested deeper than `levels` are masked as a whole, and NaN and the infinities are
    texts. The function is idempotent.
    """
    if isinstance(value, Mapping):
        return {
            mask_text(str(name)): MASK
            if name in secret_fields or not levels
            else mask(inner, secret_fields, levels - 1)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [mask(item, secret_fields, levels - 1) if levels else MASK for item in value]
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, SecretStr | SecretBytes):
        return MASK
    if isinstance(value, float) and not isfinite(value):
        return str(value)  # JSON has no such number, so readers would drop the whole entry
    return value


@cache
def secret_fields_of(model: type[BaseModel]) -> frozenset[str]:
    """Return the names of the model's secret fields: SecretStr or `writeOnly`."""
    return frozenset(_secret_names(model.model_json_schema()))


def mask_text(text: str) -> str:
    """Mask API keys, Proxmox tokens, passwords and the secrets of URLs in a text."""
    if not SUSPECT.search(text):
        return text
    text = PASSWORD.sub(rf"\1{MASK}", text)
    text = PROXMOX_TOKEN.sub(rf"\1{MASK}", text)
    text = KEY_LIKE.sub(rf"\1{MASK}", text)
    return URL.sub(lambda match: _mask_url(match.group()), text)


def _mask_url(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:  # it only begins like a URL
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
    """Return whether any of the types is secret: an optional secret is a secret."""
    return bool(schema.get("writeOnly")) or any(map(_is_secret, schema.get("anyOf", ())))
