"""The state of the server: every SQL statement, and the secrets it keeps encrypted."""

from pvemcp_server.store.backup import backup, restore
from pvemcp_server.store.database import Database
from pvemcp_server.store.store import Store, open_store
from pvemcp_server.store.watch import Topic, Watch

__all__ = ["Database", "Store", "Topic", "Watch", "backup", "open_store", "restore"]
