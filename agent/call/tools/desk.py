"""What the built-in tools ask of the database: leads, appointments, earlier calls."""

from typing import Protocol

import attrs
from typing_extensions import override

from agent.store import Database
from agent.store.sql.leads import (
    add_appointment,
    appointments_of,
    find_lead,
    may_add_appointment,
    upsert_lead,
)
from agent.store.sql.values import AppointmentRow, EarlierCall, LeadRow, LeadUpdate, NewAppointment
from agent.store.sql.views import earlier_calls


class ToolDesk(Protocol):
    """Leads and appointments. Raises what agent.store.AWAY names when the database is not there."""

    async def add_appointment(self, new: NewAppointment, most_a_day: int) -> tuple[int, bool] | None:
        """See store.leads; None: ``most_a_day`` were made for that phone or by that caller."""

    async def update_lead(self, update: LeadUpdate) -> int:
        """See store.leads."""

    async def find_lead(self, tenant_id: str, phone: str) -> LeadRow | None:
        """See store.leads."""

    async def appointments(self, tenant_id: str, phone: str) -> list[AppointmentRow]:
        """See store.leads."""

    async def earlier_calls(self, tenant_id: str, phone: str) -> list[EarlierCall]:
        """See store.views."""


@attrs.frozen
class StoreDesk(ToolDesk):
    """``ToolDesk`` on the database."""

    database: Database

    @override
    async def add_appointment(self, new: NewAppointment, most_a_day: int) -> tuple[int, bool] | None:
        async with self.database.connection() as connection, connection.transaction():
            if not await may_add_appointment(connection, new, most_a_day):
                return None
            return await add_appointment(connection, new)

    @override
    async def update_lead(self, update: LeadUpdate) -> int:
        async with self.database.connection() as connection:
            return await upsert_lead(connection, update)

    @override
    async def find_lead(self, tenant_id: str, phone: str) -> LeadRow | None:
        async with self.database.connection() as connection:
            return await find_lead(connection, tenant_id, phone)

    @override
    async def appointments(self, tenant_id: str, phone: str) -> list[AppointmentRow]:
        async with self.database.connection() as connection:
            return await appointments_of(connection, tenant_id, phone)

    @override
    async def earlier_calls(self, tenant_id: str, phone: str) -> list[EarlierCall]:
        async with self.database.connection() as connection:
            return await earlier_calls(connection, tenant_id, phone)
