"""Tenants and their numbers."""

from typing import Any

import attrs
import psycopg
from psycopg.rows import TupleRow, dict_row

from agent.core.errors import TenantError
from agent.core.tenant import Tenant
from agent.store.pg import Connection


async def list_tenants(
    connection: Connection[TupleRow], *, only: str | None = None, after: str = "", limit: int | None = None
) -> list[Tenant]:
    """All of them, by id; or ``limit`` of them, those after the id ``after``; or the one with the id ``only``."""
    rows = await connection.fetch_all(
        """
        SELECT t.id, t.name, t.language, t.time_zone, t.greeting, t.instructions, t.voice, t.tools,
          t.services, t.webhook_url, t.webhook_secret, t.delete_recordings, t.lookup, t.origins,
          t.transfer_numbers::text[] AS transfer_numbers,
          array(SELECT n.number::text FROM tenant_numbers n WHERE n.tenant_id = t.id ORDER BY 1) AS numbers
        FROM tenants t
        WHERE (%(only)s::text IS NULL OR t.id = %(only)s) AND t.id > %(after)s
        ORDER BY t.id
        LIMIT %(limit)s
        """,
        {"only": only, "after": after, "limit": limit},
        dict_row,
    )
    return [_tenant(row) for row in rows]


async def get_tenant(connection: Connection[TupleRow], tenant_id: str) -> Tenant | None:
    """The tenant of that id."""
    return next(iter(await list_tenants(connection, only=tenant_id)), None)


async def put_tenant(connection: Connection[TupleRow], tenant: Tenant) -> bool:
    """Add or replace a tenant with its numbers; True if it is new.

    Raises TenantError if a number belongs to another tenant; then nothing is changed.
    """
    values = {
        name: list(value) if isinstance(value, tuple) else value for name, value in attrs.asdict(tenant).items()
    }
    async with connection.transaction():
        # The tenant, as it is now; xmax is 0 in a row that was not there before.
        row = await connection.fetch_one(
            """
            INSERT INTO tenants (id, name, language, time_zone, greeting, instructions, voice, tools,
              transfer_numbers, services, webhook_url, webhook_secret, delete_recordings, lookup, origins)
            VALUES (%(id)s, %(name)s, %(language)s, %(time_zone)s, %(greeting)s, %(instructions)s, %(voice)s,
              %(tools)s, %(transfer_numbers)s, %(services)s, %(webhook_url)s, %(webhook_secret)s,
              %(delete_recordings)s, %(lookup)s, %(origins)s)
            ON CONFLICT (id) DO UPDATE
            SET name = excluded.name, language = excluded.language, time_zone = excluded.time_zone,
              greeting = excluded.greeting, instructions = excluded.instructions, voice = excluded.voice,
              tools = excluded.tools, transfer_numbers = excluded.transfer_numbers, services = excluded.services,
              webhook_url = excluded.webhook_url, webhook_secret = excluded.webhook_secret,
              delete_recordings = excluded.delete_recordings, lookup = excluded.lookup,
              origins = excluded.origins,
              updated_at = now()
            RETURNING xmax = 0
            """,
            values,
        )
        # Numbers that are not the tenant's any more.
        await connection.execute(
            "DELETE FROM tenant_numbers WHERE tenant_id = %(id)s AND number <> ALL (%(numbers)s::text[])", values
        )
        try:
            async with connection.transaction():
                # Numbers that are new to the tenant.
                await connection.execute(
                    """
                    INSERT INTO tenant_numbers (number, tenant_id)
                    SELECT number, %(id)s FROM unnest(%(numbers)s::text[]) number
                    WHERE number NOT IN (SELECT number FROM tenant_numbers WHERE tenant_id = %(id)s)
                    """,
                    values,
                )
        except psycopg.errors.UniqueViolation:
            raise TenantError("the tenant cannot be used", [await _taken(connection, tenant)]) from None
    return bool(row and row[0])


async def _taken(connection: Connection[TupleRow], tenant: Tenant) -> str:
    taken = await connection.fetch_all(
        """
        SELECT number, tenant_id FROM tenant_numbers
        WHERE number = ANY (%(numbers)s::text[]) AND tenant_id <> %(id)s
        """,
        {"numbers": list(tenant.numbers), "id": tenant.id},
    )
    owners = ", ".join(f"{number} to {owner}" for number, owner in taken)
    return f"numbers: a number can belong to one tenant only, but these have one already: {owners}"


def _tenant(row: dict[str, Any]) -> Tenant:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in row.items()
    }
    return Tenant(**values)
