"""Takes secrets out of arguments before anything is written down."""

import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pvemcp_server.store.key_format import KEY_PATTERN

MASK = "***"
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>]+")
PROXMOX_TOKEN = re.compile(r"(PVEAPIToken=[^\s=]+=)\S+", re.IGNORECASE)


def mask(value: Any, secret_fields: Collection[str] = ()) -> Any:
    """The value without its secrets: declared fields, our keys, and what URLs carry beyond a path.

    `secret_fields` are names of arguments, at any depth, whose type is declared secret.
    """
    if isinstance(value, Mapping):
        return {
            mask_text(str(name)): MASK if name in secret_fields else mask(inner, secret_fields)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [mask(inner, secret_fields) for inner in value]
    if isinstance(value, str):
        return mask_text(value)
    return value


def mask_text(text: str) -> str:
    """The text with our keys, Proxmox tokens and the secrets of URLs replaced."""
    text = PROXMOX_TOKEN.sub(rf"\1{MASK}", text)
    text = KEY_PATTERN.sub(MASK, text)
    return URL.sub(lambda found: _mask_url(found.group()), text)


def _mask_url(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:  # not a URL after all, but it began like one
        return MASK
    _, at, host = parts.netloc.rpartition("@")
    netloc = f"{MASK}@{host}" if at else host
    query = MASK if parts.query else ""
    return urlunsplit((parts.scheme, netloc, parts.path, query, MASK if parts.fragment else ""))
