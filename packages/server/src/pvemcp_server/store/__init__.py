"""The state of the server: its database, every SQL statement, and the encrypted secrets."""

from pvemcp_server.store.backup import backup, restore
from pvemcp_server.store.database import Database
from pvemcp_server.store.store import Store, open_store
from pvemcp_server.store.watch import Topic, Watch

__all__ = ["Database", "Store", "Topic", "Watch", "backup", "open_store", "restore"]
