"""What is kept: SQL by subject, each function on a connection of the caller's, who owns the transaction."""

from agent.store.database import AWAY, Database, open_database, open_listener
from agent.store.migrating import migrate

__all__ = ["AWAY", "Database", "migrate", "open_database", "open_listener"]
