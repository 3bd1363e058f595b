"""What the built-in tools ask of the database, and the tools themselves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Protocol
from zoneinfo import ZoneInfo

import attrs
import phonenumbers
from msgspec import Meta
from typing_extensions import override

from agent.call.tools.declare import Tool, ToolCall, make_tool
from agent.core.errors import ToolError
from agent.core.tenant_fields import normalise_number
from agent.store import Database
from agent.store.sql.leads import add_appointment, appointments_of, find_lead, upsert_lead
from agent.store.sql.values import AppointmentRow, EarlierCall, LeadRow, LeadUpdate, NewAppointment
from agent.store.sql.views import earlier_calls

FURTHEST: Final = timedelta(days=2 * 365)
"""Appointments later than this are misunderstandings."""
_SHOWN: Final = 5

# Else it is read for each country when its first number comes, in a call: 0.1 s for all of them.
phonenumbers.PhoneMetadata.load_all()

Line = Annotated[str, Meta(max_length=200)]
Note = Annotated[str, Meta(max_length=2000)]


class ToolDesk(Protocol):
    """Leads and appointments. Raises what agent.store.AWAY names when the database is not there."""

    async def add_appointment(self, new: NewAppointment) -> tuple[int, bool]:
        """See store.leads."""

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
    async def add_appointment(self, new: NewAppointment) -> tuple[int, bool]:
        async with self.database.connection() as connection:
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


@attrs.frozen
class DeskTools:
    """The built-in tools that need the desk; each method is one, as ``agent.call.tools.declare`` wants them."""

    desk: ToolDesk

    def tools(self) -> tuple[Tool, ...]:
        """All of them."""
        return (
            make_tool(self.create_appointment, writes=True),
            make_tool(self.update_lead, writes=True),
            make_tool(self.lookup_caller),
        )

    async def create_appointment(
        self,
        call: ToolCall,
        *,
        starts_at: Annotated[
            str, Meta(description="Local date and time, such as 2026-03-31T14:30", max_length=40)
        ],
        service: Annotated[Line, Meta(description="What it is for")] = "",
        name: Annotated[Line, Meta(description="Whom it is for")] = "",
        phone: Annotated[Line, Meta(description="Their number, if it is not the one they call from")] = "",
        note: Note = "",
    ) -> dict[str, Any]:
        """Make an appointment for the caller. Confirm it only when this has answered."""
        zone = ZoneInfo(call.tenant.time_zone)
        at = local_time(starts_at, zone, call.now)
        new = NewAppointment(
            tenant_id=call.tenant.id,
            call_sid=call.call_sid,
            tool_call_id=call.id,
            starts_at=at.astimezone(UTC),
            phone=self._phone(call, phone),
            service=service,
            name=name,
            note=note,
        )
        number, is_new = await self.desk.add_appointment(new)
        return {"appointment": number, "starts_at": _spoken(at), "already_made": not is_new}

    async def update_lead(
        self,
        call: ToolCall,
        *,
        name: Annotated[Line, Meta(description="The caller's name")] = "",
        city: Annotated[Line, Meta(description="Where they live or call from")] = "",
        service: Annotated[Line, Meta(description="What they are interested in")] = "",
        status: Literal["", "contacted", "qualified", "not_interested", "customer"] = "",
        note: Note = "",
    ) -> dict[str, Any]:
        """Write down what is known of the caller. Call it when you learn something, with all you learnt."""
        if not (name or city or service or status or note):
            raise ToolError("nothing was given to write down")
        update = LeadUpdate(
            call.tenant.id, self._phone(call), name=name, city=city, service=service, status=status, note=note
        )
        await self.desk.update_lead(update)
        return {"saved": True}

    async def lookup_caller(self, call: ToolCall) -> dict[str, Any]:
        """Look up what is known of the caller: name, city, interest, appointments, and the last calls."""
        phone = self._phone(call)
        lead = await self.desk.find_lead(call.tenant.id, phone)
        appointments = await self.desk.appointments(call.tenant.id, phone)
        calls = await self.desk.earlier_calls(call.tenant.id, phone)
        if lead is None and not appointments and not calls:
            return {"known": False}
        zone = ZoneInfo(call.tenant.time_zone)
        return {
            "known": True,
            **({} if lead is None else _filled(attrs.asdict(lead), "name", "city", "service", "status", "note")),
            "appointments": [
                {"starts_at": _spoken(row.starts_at.astimezone(zone)), "service": row.service}
                for row in appointments[:_SHOWN]
            ],
            "last_calls": [
                {"at": _spoken(row.answered_at.astimezone(zone)), "about": row.summary or "not known"}
                for row in calls[:_SHOWN]
            ],
        }

    def _phone(self, call: ToolCall, given: str = "") -> str:
        """The number in E.164. Raises ToolError."""
        try:
            if given:
                return normalise_number(given, _region_of(call))
            return normalise_number(call.phone)
        except ValueError:
            wrong = f"{given!r} is no telephone number" if given else "the caller's number is withheld"
            raise ToolError(f"{wrong}: ask the caller for one, with its country code") from None


def local_time(text: str, zone: ZoneInfo, now: datetime) -> datetime:
    """The moment that ``text`` names in ``zone``, or in the zone it names itself. Raises ToolError.

    Of a time that comes twice (clocks are put back) the first is meant.
    """
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ToolError(f"{text!r} is no date and time such as 2026-03-31T14:30") from None
    at = at.astimezone(zone) if at.tzinfo else at.replace(tzinfo=zone)
    if at.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != at.replace(tzinfo=None):
        raise ToolError(f"{text} does not exist in {zone.key}: clocks are put forward over it")
    if at <= now:
        raise ToolError(f"{text} is past: it is {_spoken(now)}")
    if at - now > FURTHEST:
        raise ToolError(f"{text} is too far away: it is {_spoken(now)}")
    return at


def _spoken(at: datetime) -> str:
    return at.strftime("%A, %Y-%m-%d %H:%M")


def _filled(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names if row[name]}


def _region_of(call: ToolCall) -> str:
    """Where a number without a country code is: where the tenant is called, or where the caller is."""
    for number in (*call.tenant.numbers, call.phone):
        try:
            return phonenumbers.region_code_for_number(phonenumbers.parse(number)) or ""
        except phonenumbers.NumberParseException:
            continue
    return ""
