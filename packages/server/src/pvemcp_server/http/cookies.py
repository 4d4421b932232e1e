"""Keeps other applications' cookies from the frameworks, which decode each one at any cost.

The cookies of a host are shared by all its ports. Before 3.11.10 and 3.12.6, Python takes half a
minute for the backslashes of one quoted cookie, and FastAPI decodes the cookies for every route.
"""

import re
from collections.abc import MutableMapping
from typing import Any, Final

from pvemcp_server.store.key_format import PREFIX

# Python quotes those of ours that end with "=", and escapes nothing in any; `__Host-` is for https
_OWN: Final = re.compile(rb"(?:__Host-)?" + PREFIX.encode() + rb'_\w+="?[^"\\\s]*"?')


def keep_own_cookies(scope: MutableMapping[str, Any]) -> None:
    """Remove all cookies from the scope that this server cannot have set."""
    scope["headers"] = [
        (name, _own(value) if name == b"cookie" else value) for name, value in scope["headers"]
    ]


def _own(header: bytes) -> bytes:
    cookies = (cookie.strip() for cookie in header.split(b";"))
    return b"; ".join(cookie for cookie in cookies if _OWN.fullmatch(cookie))
