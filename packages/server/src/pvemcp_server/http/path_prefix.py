"""The path prefix of the public URL: removed from paths of requests, added to redirects."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

_REDIRECTS: Final = ("location", "hx-redirect")


@dataclass(frozen=True, slots=True)
class PathPrefix:
    """A path prefix such as /pve, under which a reverse proxy serves this server; empty for none.

    The application knows no prefix. A proxy may remove it or pass it on: no path of this server
    begins like a prefix (`config.RESERVED`), so each path has one reading.
    """

    text: str = ""

    def removed_from(self, path: str) -> str:
        """Return a path of a request without the prefix; any other path is returned unchanged.

        Well-known documents have it behind their name (RFC 8414, 3.1; RFC 9728, 3.1).
        """
        return _pattern(self.text).sub(r"\1", path, count=1) or "/"

    def added_to(self, send: Send) -> Send:
        """Return a `send` that adds the prefix to redirects within this server."""

        async def send_with_prefix(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name in _REDIRECTS:
                    target = headers.get(name, "")
                    if target.startswith("/"):
                        headers[name] = f"{self.text}{target}"
            await send(message)

        return send_with_prefix


@lru_cache(8)
def _pattern(prefix: str) -> re.Pattern[str]:
    return re.compile(rf"\A(/\.well-known/[^/]+)?{re.escape(prefix)}(?=/|\Z)")
