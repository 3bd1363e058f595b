"""Tenants and their numbers."""

from __future__ import annotations

from typing import Any

import attrs
import psycopg
from psycopg.rows import TupleRow, dict_row

from agent.core.errors import TenantError
from agent.core.tenant import Tenant
from agent.store.pg import Connection

_FIELDS = tuple(field.name for field in attrs.fields(Tenant) if field.name != "numbers")
_SELECT = f"""
SELECT {", ".join(f"t.{name}" for name in _FIELDS if name != "transfer_numbers")},
  t.transfer_numbers::text[] AS transfer_numbers,
  coalesce(array_agg(n.number::text ORDER BY n.number) FILTER (WHERE n.number IS NOT NULL), '{{}}') AS numbers
FROM tenants t LEFT JOIN tenant_numbers n ON n.tenant_id = t.id
"""


async def list_tenants(
    connection: Connection[TupleRow], *, after: str = "", limit: int | None = None
) -> list[Tenant]:
    """All of them, by id; or ``limit`` of them, those behind the id ``after``."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(f"{_SELECT} WHERE t.id > %s GROUP BY t.id ORDER BY t.id LIMIT %s", [after, limit])
        return [_tenant(row) for row in await cursor.fetchall()]


async def get_tenant(connection: Connection[TupleRow], tenant_id: str) -> Tenant | None:
    """The tenant of that id."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(f"{_SELECT} WHERE t.id = %s GROUP BY t.id", [tenant_id])
        row = await cursor.fetchone()
        return _tenant(row) if row else None


async def put_tenant(connection: Connection[TupleRow], tenant: Tenant) -> bool:
    """Add or replace a tenant with its numbers; True if it is new.

    Raises TenantError if a number belongs to another tenant; then nothing is changed.
    """
    values = {name: _plain(getattr(tenant, name)) for name in _FIELDS}
    columns = ", ".join(_FIELDS)
    places = ", ".join(f"%({name})s" for name in _FIELDS)
    changes = ", ".join(f"{name} = excluded.{name}" for name in _FIELDS if name != "id")
    async with connection.transaction():
        cursor = await connection.execute(
            f"INSERT INTO tenants ({columns}) VALUES ({places}) "
            f"ON CONFLICT (id) DO UPDATE SET {changes}, updated_at = now() RETURNING xmax = 0",
            values,
        )
        row = await cursor.fetchone()
        await connection.execute(
            "DELETE FROM tenant_numbers WHERE tenant_id = %s AND number <> ALL (%s::text[])",
            [tenant.id, list(tenant.numbers)],
        )
        try:
            async with connection.transaction():
                await connection.execute(
                    "INSERT INTO tenant_numbers (number, tenant_id) "
                    "SELECT number, %s FROM unnest(%s::text[]) number "
                    "WHERE number NOT IN (SELECT number FROM tenant_numbers WHERE tenant_id = %s)",
                    [tenant.id, list(tenant.numbers), tenant.id],
                )
        except psycopg.errors.UniqueViolation:
            raise TenantError("the tenant cannot be used", [await _taken(connection, tenant)]) from None
    return bool(row and row[0])


async def _taken(connection: Connection[TupleRow], tenant: Tenant) -> str:
    cursor = await connection.execute(
        "SELECT number, tenant_id FROM tenant_numbers WHERE number = ANY (%s::text[]) AND tenant_id <> %s",
        [list(tenant.numbers), tenant.id],
    )
    owners = ", ".join(f"{number} to {owner}" for number, owner in await cursor.fetchall())
    return f"numbers: a number can belong to one tenant only, but these have one already: {owners}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _tenant(row: dict[str, Any]) -> Tenant:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in row.items()
    }
    return Tenant(**values)
