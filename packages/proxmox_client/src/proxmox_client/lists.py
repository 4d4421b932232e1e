"""Proxmox's lists in one text: tags, guests, storages, content types, roles, nodes."""

import re

_SEPARATORS = re.compile(r"[,;\s]+")


def split_list(text: str | None) -> list[str]:
    """Return the items of a list, without empty ones.

    Like `split_list` in PVE/Tools.pm: comma, semicolon and white space separate; in a text with NUL
    bytes only these do. Cleared tags are stored as one blank, which is an empty list.
    """
    if not text:
        return []
    parts = text.split("\0") if "\0" in text else _SEPARATORS.split(text)
    return [part for part in parts if part]
