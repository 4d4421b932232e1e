"""Messages between the processes of one installation, through PostgreSQL's NOTIFY.

A message is for a moment and for processes that run: nothing of it is stored, and who does not
listen misses it. What has to last goes into a table.
"""

import asyncio
import json
import logging
import secrets
import zlib
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import func, literal_column, select

from pvemcp_server.store.database import Database
from pvemcp_server.store.fleet import CHANNEL, Fleet

PART: Final = 7_000  # characters; PostgreSQL takes 8,000 bytes in a notification
MOST_PARTS: Final = 64  # of a message: 320 KiB, more than any request
MOST_INCOMPLETE: Final = 64  # messages whose parts have not all come
SEALED_AT_ONCE: Final = 32 * 1024  # bytes; what is longer is sealed in a thread, beside other calls
EVERY: Final = "*"
_KIND: Final = "sealed"
_NONCE: Final = 12  # bytes
log = logging.getLogger(__name__)

Content = Mapping[str, Any]
"""What a message says, in values that JSON has."""


class ProcessChannel:
    """Sends messages to other processes, and receives those for this one.

    They are sealed: each user of the database may listen to its notifications and send some.
    `key` returns the same key in every process. With SQLite there is no other process.
    """

    def __init__(self, database: Database, fleet: Fleet, key: Callable[[], bytes]) -> None:
        self.process = fleet.id[:8]  # the name of this process
        self._database = database
        self._fleet = fleet
        self._key = key  # called at each use, because a rotation renews it
        self._incomplete: OrderedDict[str, list[str]] = OrderedDict()

    @property
    def has_others(self) -> bool:
        """Whether there may be other processes."""
        return self._fleet.is_shared

    async def send(self, to: str, content: Content) -> None:
        """Send a message to the process of that name, or to EVERY other one.

        Raise DatabaseFailed if it cannot be sent.
        """
        if not self.has_others:
            return
        header, key = f"{to} {self.process}", self._key()
        # with escapes, letters beyond ASCII would be three times as long, and slow to compress
        plain = json.dumps(content, ensure_ascii=False).encode()
        if len(plain) <= SEALED_AT_ONCE:
            text = _sealed(plain, header, key)
        else:
            text = await asyncio.to_thread(_sealed, plain, header, key)
        parts = [text[at : at + PART] for at in range(0, len(text), PART)]
        if len(parts) > MOST_PARTS:
            raise ValueError("too long for a message between processes")
        name = secrets.token_hex(6)
        async with self._database.writing() as connection:  # all parts arrive together, in order
            for number, part in enumerate(parts, 1):
                payload = f"{_KIND} {header} {name} {number}/{len(parts)} {part}"
                notify = func.pg_notify(literal_column(CHANNEL), payload)
                await connection.execute(select(notify))

    def listen(self, receive: Callable[[Content], None]) -> None:
        """Call `receive` with each message for this process from now on."""
        self._fleet.on_message(_KIND, lambda payload: self._take(payload, receive))

    def _take(self, payload: str, receive: Callable[[Content], None]) -> None:
        """Take one notification; ignore what no process of this installation has sent."""
        try:
            to, sender, name, position, part = payload.split(" ")
            number, count = map(int, position.split("/"))
        except ValueError:
            return
        if to not in (self.process, EVERY) or sender == self.process:
            return
        parts = self._incomplete.setdefault(name, [])
        parts.append(part)
        if number == count <= MOST_PARTS:
            del self._incomplete[name]
            try:
                sealed = b64decode("".join(parts), validate=True)
                nonce, header = sealed[:_NONCE], f"{to} {sender}"
                plain = AESGCM(self._key()).decrypt(nonce, sealed[_NONCE:], header.encode())
            except (ValueError, InvalidTag):
                log.warning("A message between processes is not sealed by one of them; ignored")
                return
            receive(json.loads(zlib.decompress(plain)))
        elif len(parts) > MOST_PARTS or len(self._incomplete) > MOST_INCOMPLETE:
            self._incomplete.popitem(last=False)


def _sealed(plain: bytes, header: str, key: bytes) -> str:
    """Return a message compressed, encrypted and bound to its header, as a text."""
    nonce = secrets.token_bytes(_NONCE)
    sealed = AESGCM(key).encrypt(nonce, zlib.compress(plain, 1), header.encode())
    return b64encode(nonce + sealed).decode()
