"""The head of the audit chain, noted outside the database in `audit.head`.

A copy of the database, or rows removed at its end together with an older mark, are valid in
themselves. They are found only against a head that is kept elsewhere.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from proxmox_client.properties import whole_number
from pvemcp_server.store.audit_chain import Mark, is_sealed, seal_of
from pvemcp_server.store.files import replaced_file

NOTED = "noted"  # the seal's name, so that a mark of the database is not accepted here
log = logging.getLogger(__name__)


class AuditHeadFile:
    """One line, `SEQ:HASH SEAL`, replaced as a whole."""

    def __init__(self, state_dir: Path, key: Callable[[], bytes]) -> None:
        self.path = state_dir / "audit.head"
        self._key = key

    def read(self) -> Mark | None:
        """Return the noted head; None when there is none that belongs to this audit."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("The noted head of the audit cannot be read: %s", error)
            return None
        position, _, seal = text.strip().partition(" ")
        number, _, hash_ = position.partition(":")
        if (seq := whole_number(number)) is not None:
            mark = Mark(seq, hash_)
            if is_sealed(self._key(), NOTED, mark, seal.encode("ascii", "replace").decode()):
                return mark
        log.warning("%s was changed, or belongs to another database; it is not used", self.path)
        return None

    def write(self, mark: Mark) -> None:
        """Note the head; raise OSError when that is impossible."""
        with replaced_file(self.path) as file:
            file.write(f"{mark} {seal_of(self._key(), NOTED, mark)}\n".encode())
