"""Names of nodes, storages and pools, as Proxmox lets them be.

A host that was taken over sends any text as one. What is no name is a malformed value, so that no
sentence to a user, no path and no table has it.
"""

import re
from typing import Annotated, Final

from msgspec import Meta

NAME: Final = re.compile(r"[\w.+@\ufffd-]{1,100}(?:/[\w.+@\ufffd-]{1,100}){0,5}", re.ASCII)
"""One word, or the words of a nested pool; U+FFFD stands for bytes that are no text.

Sources: pve-node and pve-storage-id in PVE/JSONSchema.pm, pve-poolid in PVE/AccessControl.pm.
"""
Name = Annotated[str, Meta(pattern=rf"(?a)^(?:{NAME.pattern})?\Z")]
"""A name, or none, as a field of an answer."""
_PLAIN: Final = re.compile(r"[\w.,:;@!/+=%~#*^-]+", re.ASCII)
_LONGEST: Final = 80


def reported(text: str) -> str:
    """Return the beginning of a name for a report of what is malformed; quoted unless a word."""
    name = text[:_LONGEST]
    return name if _PLAIN.fullmatch(name) else repr(name)
