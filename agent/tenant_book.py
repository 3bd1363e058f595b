"""Whose number was called: the tenants in memory, so that no call ever waits for the database (PC-5)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal

import attrs
import psycopg
import trio

from agent.eventlog import EventLog
from agent.settings import Settings
from agent.store import AWAY, Database, open_listener
from agent.store.tenants import list_tenants
from agent.tenants import DEFAULT_TENANT_ID, Tenant

REFRESH_S: Final = 60.0
"""How often all tenants are read, in case word of a change was lost."""
RETRY_S: Final = 5.0
CHANNEL: Final = "tenants"


def default_tenant(settings: Settings) -> Tenant:
    """The tenant of calls to numbers of nobody, as the settings have it."""
    return Tenant(id=DEFAULT_TENANT_ID, name="", language=settings.language)


@attrs.define(eq=False)
class TenantBook:
    """The tenants as last read. ``find`` is synchronous; ``run`` keeps the book up to date."""

    default: Tenant
    unknown_number: Literal["default", "refuse"] = "default"
    _by_number: dict[str, Tenant] = attrs.field(factory=dict)

    def find(self, number: str) -> Tenant | None:
        """Whose number it is; None: nobody's, and calls to such are refused."""
        tenant = self._by_number.get(number)
        if tenant is None and (self.unknown_number == "default" or not number):
            return self.default
        return tenant

    def of_call(self, direction: str, caller: str, called: str) -> Tenant | None:
        """The tenant of a call: by the number that was called, or that calls for us."""
        return self.find(called if direction == "inbound" else caller)

    def replace(self, tenants: Iterable[Tenant]) -> None:
        """All tenants, as they are now."""
        tenants = list(tenants)
        self._by_number = {number: tenant for tenant in tenants for number in tenant.numbers}
        for tenant in tenants:
            if tenant.id == DEFAULT_TENANT_ID:
                self.default = attrs.evolve(tenant, language=tenant.language or self.default.language)

    async def run(self, database: Database, events: EventLog) -> None:
        """Read the tenants, and again whenever they change, until cancelled. Outlives the database's absences."""
        await database.ready.wait()
        while True:
            try:
                async with open_listener(database, CHANNEL) as listener:
                    await self._follow(database, listener)
            except AWAY as error:
                events.emit_first("TENANTS_NOT_READ", error=str(error))
            await trio.sleep(RETRY_S)

    async def _follow(self, database: Database, listener: Any) -> None:
        while True:
            async with database.connection() as connection:
                self.replace(await list_tenants(connection))
            with trio.move_on_after(REFRESH_S):
                async for _ in listener.notifies():
                    break
            if listener.closed:
                raise psycopg.OperationalError("the listening connection was closed")
