"""What the built-in tools work on, in memory."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import attrs
import trio

from agent.call.tools.declare import ToolCall
from agent.core.tenant import Tenant
from agent.store.sql.values import AppointmentRow, EarlierCall, LeadRow, LeadUpdate, NewAppointment

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
ZONE = ZoneInfo("America/New_York")
CALLED_AT = datetime(2026, 11, 20, 12, tzinfo=ZONE)
SHOP = Tenant("shop", "The Shop", ("+12125550100",), time_zone=ZONE.key)
OPEN_SHOP = attrs.evolve(SHOP, lookup="open")
PHONE = "+12125550123"


def calling(
    tool_call_id: str = "call_1", phone: str = PHONE, tenant: Tenant = SHOP, said: tuple[str, ...] = ()
) -> ToolCall:
    """Who calls, in a call of its own, and what they said in it."""
    return ToolCall(tool_call_id, "CA1", tenant, phone, CALLED_AT, said)


@attrs.define(eq=False)
class MemoryDesk:
    """Leads and appointments in memory."""

    leads: dict[tuple[str, str], LeadRow] = attrs.field(factory=dict)
    made: list[tuple[NewAppointment, int]] = attrs.field(factory=list)
    delay_s: float = 0.0

    async def add_appointment(self, new: NewAppointment, most_a_day: int) -> tuple[int, bool] | None:
        """See ToolDesk."""
        await trio.sleep(self.delay_s)
        if sum(new.phone == known.phone or new.caller == known.caller for known, _ in self.made) >= most_a_day:
            return None
        await self.update_lead(
            LeadUpdate(new.tenant_id, new.phone, name=new.name, service=new.service, status="appointment")
        )
        for known, number in self.made:
            if (known.call_sid, known.tool_call_id) == (new.call_sid, new.tool_call_id) or (
                known.tenant_id,
                known.phone,
                known.starts_at,
            ) == (new.tenant_id, new.phone, new.starts_at):
                return number, False
        self.made.append((new, len(self.made) + 1))
        return len(self.made), True

    async def update_lead(self, update: LeadUpdate) -> int:
        """See ToolDesk."""
        await trio.sleep(self.delay_s)
        key = (update.tenant_id, update.phone)
        row = self.leads.get(key) or LeadRow(len(self.leads) + 1, *key, None, None, None, "new", None, NOW, NOW)
        given = {name: getattr(update, name) for name in ("name", "city", "service", "status", "note")}
        self.leads[key] = attrs.evolve(row, **{name: value for name, value in given.items() if value})
        return row.id

    async def find_lead(self, tenant_id: str, phone: str) -> LeadRow | None:
        """See ToolDesk."""
        await trio.sleep(self.delay_s)
        return self.leads.get((tenant_id, phone))

    async def appointments(self, tenant_id: str, phone: str) -> list[AppointmentRow]:
        """See ToolDesk."""
        await trio.sleep(self.delay_s)
        rows = [
            AppointmentRow(number, new.starts_at, new.service, new.name, new.phone, new.note)
            for new, number in self.made
            if (new.tenant_id, new.phone) == (tenant_id, phone)
        ]
        return sorted(rows, key=lambda row: row.starts_at, reverse=True)

    async def earlier_calls(self, tenant_id: str, phone: str) -> list[EarlierCall]:
        """See ToolDesk."""
        del tenant_id, phone
        await trio.sleep(self.delay_s)
        return []


@attrs.define(eq=False)
class NotingDesk(MemoryDesk):
    """Notes what it was asked to do, before it does it."""

    begun: list[str] = attrs.field(factory=list)

    async def add_appointment(self, new: NewAppointment, most_a_day: int) -> tuple[int, bool] | None:
        """See ToolDesk."""
        self.begun.append(new.tool_call_id)
        return await super().add_appointment(new, most_a_day)
