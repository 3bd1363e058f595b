"""Whose number was called: the tenants in memory, so that no call ever waits for the database (PC-5)."""

from collections.abc import Iterable
from typing import Any, Final, Literal

import attrs
import psycopg
import trio

from agent.core.event_log import EventLog
from agent.core.settings import Settings
from agent.core.tenant import DEFAULT_TENANT_ID, Tenant
from agent.core.tenant_fields import zone_of
from agent.store import AWAY, Database, open_listener
from agent.store.sql.tenants import list_tenants

REFRESH_S: Final = 60.0
"""How often all tenants are read, in case word of a change was lost."""
READ_S: Final = 20.0
"""A database that takes longer to tell them counts as away."""
RETRY_S: Final = 5.0
PAGE: Final = 100
"""Tenants read at once: 0.7 ms of the event loop's time."""
CHANNEL: Final = "tenants"
UNNAMED: Final = "Default"
"""What the store calls the default tenant until somebody names it."""


def default_tenant(settings: Settings) -> Tenant:
    """The tenant of calls to numbers of nobody, as the settings have it."""
    return Tenant(id=DEFAULT_TENANT_ID, name="", language=settings.language)


@attrs.define(eq=False)
class TenantDirectory:
    """The tenants as last read. ``find`` is synchronous; ``run`` keeps the book up to date."""

    default: Tenant
    unknown_number: Literal["default", "refuse"] = "default"
    _by_number: dict[str, Tenant] = attrs.field(factory=dict)
    _by_id: dict[str, Tenant] = attrs.field(factory=dict)
    _origins: frozenset[str] = frozenset()
    _language: str = attrs.field(init=False)
    """That of the settings: the default tenant's, unless it has one of its own."""

    def __attrs_post_init__(self) -> None:
        self._language = self.default.language

    def find(self, number: str) -> Tenant | None:
        """Whose number it is; None: nobody's, and calls to such are refused."""
        tenant = self._by_number.get(number)
        if tenant is None and (self.unknown_number == "default" or not number):
            return self.default
        return tenant

    def named(self, name: str) -> Tenant | None:
        """The tenant with this id or number; the default one for an empty name. None: there is no such."""
        return self._by_id.get(name) or self._by_number.get(name) if name else self.default

    def origins_of(self, name: str | None) -> frozenset[str] | None:
        """Sites whose pages may phone the tenant of that name, as in ``named``; for None those of all tenants."""
        if name is None:
            return self._origins
        tenant = self.named(name)
        return None if tenant is None else frozenset(tenant.origins)

    def of_call(self, direction: str, caller: str, called: str) -> Tenant | None:
        """The tenant of a call: by the number that was called, or that calls for us."""
        return self.find(called if direction == "inbound" else caller)

    def replace(self, tenants: Iterable[Tenant]) -> None:
        """All tenants, as they are now."""
        tenants = [_in_a_known_zone(tenant) for tenant in tenants]
        self._by_number = {number: tenant for tenant in tenants for number in tenant.numbers}
        self._by_id = {tenant.id: tenant for tenant in tenants}
        self._origins = frozenset(site for tenant in tenants for site in tenant.origins)
        for tenant in tenants:
            if tenant.id == DEFAULT_TENANT_ID:
                name = "" if tenant.name == UNNAMED else tenant.name
                self.default = attrs.evolve(tenant, name=name, language=tenant.language or self._language)
                self._by_number |= dict.fromkeys(tenant.numbers, self.default)
                self._by_id[tenant.id] = self.default

    async def run(self, database: Database, events: EventLog) -> None:
        """Read the tenants, and again whenever they change, until cancelled. Outlives the database's absences."""
        await database.ready.wait()
        while True:
            try:
                with trio.fail_after(READ_S) as connecting:
                    async with open_listener(database, CHANNEL) as listener:
                        connecting.deadline = float("inf")
                        await self._follow(database, listener)
            except (*AWAY, psycopg.Error, trio.TooSlowError) as error:
                events.emit_first("TENANTS_NOT_READ", error=str(error) or "it took too long")
            await trio.sleep(RETRY_S)

    async def _follow(self, database: Database, listener: Any) -> None:
        while True:
            with trio.fail_after(READ_S):
                self.replace(await _read_all(database))
            with trio.move_on_after(REFRESH_S):
                await listener.notification()
            if listener.closed:
                raise psycopg.OperationalError("the listening connection was closed")


async def _read_all(database: Database) -> list[Tenant]:
    """All tenants, a page at a time: a thousand at once would hold the event loop for 7 ms."""
    found: list[Tenant] = []
    async with database.connection() as connection:
        while True:
            last = found[-1].id if found else ""
            page = await list_tenants(connection, after=last, limit=PAGE)
            found += page
            if len(page) < PAGE:
                return found


def _in_a_known_zone(tenant: Tenant) -> Tenant:
    """With a time zone that this machine knows; looked up here, a call has it at hand."""
    return attrs.evolve(tenant, time_zone=zone_of(tenant.time_zone).key)
