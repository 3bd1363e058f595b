"""Postgres on Trio: psycopg 3's async interface, cancels that leave nothing in doubt, and a small pool.

psycopg's protocol core is a set of generators that say what they wait for; here Trio does the waiting (see
:mod:`agent.store.pg.waiting`). Nothing else of the project is used: it could be a package of its own.

    async with open_pool("postgresql://localhost/app", max_size=8) as pool:
        async with pool.connection() as connection, connection.transaction():
            await connection.execute("INSERT INTO leads (phone) VALUES (%s)", ["+15550100"])
"""

from agent.store.pg.cancelling import CLEAN_UP_S
from agent.store.pg.connection import Connection, open_connection
from agent.store.pg.pool import Pool, PoolClosedError, open_pool
from agent.store.pg.transaction import Transaction

__all__ = [
    "CLEAN_UP_S",
    "Connection",
    "Pool",
    "PoolClosedError",
    "Transaction",
    "open_connection",
    "open_pool",
]
