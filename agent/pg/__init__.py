"""Postgres on Trio: psycopg 3's async interface, with cancellation that leaves nothing in doubt, and a small pool.

psycopg's protocol core is a set of generators that say what they wait for; here Trio does the waiting (see
:mod:`agent.pg.waiting`). Nothing else of the project is used: it could be a package of its own.

    async with open_pool("postgresql://localhost/app", max_size=8) as pool:
        async with pool.connection() as connection, connection.transaction():
            await connection.execute("INSERT INTO leads (phone) VALUES (%s)", ["+15550100"])
"""

from agent.pg.connection import CLEAN_UP_S, Connection, open_connection
from agent.pg.cursors import Copy, Cursor, ServerCursor
from agent.pg.pool import Pool, PoolClosedError, PoolStats, open_pool
from agent.pg.transaction import Pipeline, Transaction

__all__ = [
    "CLEAN_UP_S",
    "Connection",
    "Copy",
    "Cursor",
    "Pipeline",
    "Pool",
    "PoolClosedError",
    "PoolStats",
    "ServerCursor",
    "Transaction",
    "open_connection",
    "open_pool",
]
