"""The built-in tools: appointments, leads, and what may be told of a caller (DO-4)."""

import re
import unicodedata
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

import attrs
import phonenumbers
from msgspec import Meta

from agent.call.tools.declare import Tool, ToolCall, make_tool
from agent.call.tools.desk import ToolDesk
from agent.core.bounds import ModelBounds
from agent.core.errors import BoundError, ToolError
from agent.core.tenant_fields import normalise_number
from agent.store.sql.values import LeadRow, LeadUpdate, NewAppointment

FURTHEST: Final = timedelta(days=2 * 365)
"""Appointments later than this are misunderstandings."""
_SHOWN: Final = 5

# Else it is read for each country when its first number comes, in a call: 0.1 s for all of them.
phonenumbers.PhoneMetadata.load_all()

ShortText = Annotated[str, Meta(max_length=200)]
Note = Annotated[str, Meta(max_length=2000)]


@attrs.frozen
class DeskTools:
    """The built-in tools that need the desk; each method is one, as ``agent.call.tools.declare`` wants them.

    A caller ID proves nothing: whoever shows a number may leave word for it, and is told a first name. More is
    told of what matches the full name or the date that they give, unless the tenant's ``lookup`` is open.
    """

    desk: ToolDesk
    bounds: ModelBounds = attrs.field(factory=ModelBounds)

    def tools(self) -> tuple[Tool, ...]:
        """All of them."""
        return (
            make_tool(self.create_appointment, writes=True, most=self.bounds.appointments),
            make_tool(self.update_lead, writes=True),
            make_tool(self.lookup_caller, most=self.bounds.lookups),
        )

    async def create_appointment(
        self,
        call: ToolCall,
        *,
        starts_at: Annotated[
            str, Meta(description="Local date and time, such as 2026-03-31T14:30", max_length=40)
        ],
        service: Annotated[ShortText, Meta(description="What it is for")] = "",
        name: Annotated[ShortText, Meta(description="Whom it is for")] = "",
        phone: Annotated[
            ShortText, Meta(description="Their number, if it is not the one they call from; only as they said it")
        ] = "",
        note: Note = "",
    ) -> dict[str, Any]:
        """Make an appointment for the caller. Confirm it only when this has answered."""
        number = self._phone(call, phone)
        await self._lead_before(call, number)
        zone = ZoneInfo(call.tenant.time_zone)
        at = local_time(starts_at, zone, call.now)
        new = NewAppointment(
            tenant_id=call.tenant.id,
            call_sid=call.call_sid,
            tool_call_id=call.id,
            starts_at=at.astimezone(UTC),
            phone=number,
            caller=call.phone,
            service=service,
            name=name,
            note=note,
        )
        made = await self.desk.add_appointment(new, self.bounds.appointments_a_day)
        if made is None:
            raise BoundError(
                "appointments_a_day",
                "no more appointments can be made for this caller today: do not try again, and offer that a "
                "person calls back",
            )
        return {"appointment": made[0], "starts_at": _spoken(at), "already_made": not made[1]}

    async def update_lead(
        self,
        call: ToolCall,
        *,
        name: Annotated[ShortText, Meta(description="The caller's name")] = "",
        city: Annotated[ShortText, Meta(description="Where they live or call from")] = "",
        service: Annotated[ShortText, Meta(description="What they are interested in")] = "",
        status: Literal["", "contacted", "qualified", "not_interested", "customer"] = "",
        note: Note = "",
    ) -> dict[str, Any]:
        """Write down what is known of the caller. Call it when you learn something, with all you learnt."""
        if not (name or city or service or status or note):
            raise ToolError("nothing was given to write down")
        phone = self._phone(call)
        await self._lead_before(call, phone)
        update = LeadUpdate(
            call.tenant.id, phone, name=name, city=city, service=service, status=status, note=note
        )
        await self.desk.update_lead(update)
        return {"saved": True}

    async def lookup_caller(
        self,
        call: ToolCall,
        *,
        full_name: Annotated[ShortText, Meta(description="First and last name, as the caller gave them")] = "",
        appointment_on: Annotated[
            str, Meta(description="Local date of an appointment that the caller named: 2026-03-31", max_length=40)
        ] = "",
    ) -> dict[str, Any]:
        """Look up whether the caller is known.

        A number can be faked, so you are told a first name, and more once you pass the full name, or the date of
        an appointment, as the caller gave it. Never guess one.
        """
        phone, given = self._phone(call), bool(full_name or appointment_on)
        lead = await self._lead_before(call, phone)
        appointments = await self.desk.appointments(call.tenant.id, phone)
        calls = await self.desk.earlier_calls(call.tenant.id, phone)
        if lead is None and not appointments and not calls:
            return {"known": False}
        zone, is_open = ZoneInfo(call.tenant.time_zone), call.tenant.lookup == "open"
        name, day = _folded(full_name), _date(appointment_on)
        is_lead = is_open or (lead is not None and _is_name(name, lead.name))
        told = [
            row
            for row in appointments
            if is_open or _is_name(name, row.name) or row.starts_at.astimezone(zone).date() == day
        ]
        if given and not (is_lead or told):
            raise BoundError(
                "lookup",
                "that is not what is written down for this number: do not guess, go on as with a new caller",
            )
        answer: dict[str, Any] = {"known": True}
        if lead is not None:
            answer |= {"first_name": (lead.name or "").partition(" ")[0]}
        if is_lead and lead is not None:
            answer |= _filled(attrs.asdict(lead), "name", "city", "service", "status", "note")
        if is_lead or told:
            answer["appointments"] = [
                {"starts_at": _spoken(row.starts_at.astimezone(zone)), "service": row.service}
                for row in told[:_SHOWN]
            ]
        if is_lead:
            answer["last_calls"] = [
                {"at": _spoken(row.answered_at.astimezone(zone)), "about": row.summary or "not known"}
                for row in calls[:_SHOWN]
            ]
        return answer

    async def _lead_before(self, call: ToolCall, phone: str) -> LeadRow | None:
        """What was known of a number before this call wrote of it: what it wrote proves nothing."""
        key = "lead before", phone
        if key not in call.memory:
            call.memory.setdefault(key, await self.desk.find_lead(call.tenant.id, phone))
        row: LeadRow | None = call.memory[key]
        return row

    def _phone(self, call: ToolCall, given: str = "") -> str:
        """The number in E.164: the caller's own, or ``given`` if the caller named it. Raises ToolError."""
        try:
            number = normalise_number(given, _region_of(call)) if given else normalise_number(call.phone)
        except ValueError:
            wrong = f"{given!r} is no telephone number" if given else "the caller's number is withheld"
            raise ToolError(f"{wrong}: ask the caller for one, with its country code") from None
        if (
            given
            and number != call.phone
            and self.bounds.other_numbers == "confirmed"
            and not call.has_said(number)
        ):
            raise BoundError(
                "numbers",
                f"the caller has not said the number {given}: ask them to say it digit by digit or to key it in, "
                "or leave it out to take the number they call from",
            )
        return number


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


def _date(text: str) -> date | None:
    """The date that ``text`` begins with; None for none at all. Raises ToolError."""
    try:
        return date.fromisoformat(text.strip()[:10]) if text else None
    except ValueError:
        raise ToolError(f"{text!r} is no date such as 2026-03-31") from None


def _folded(name: str) -> list[str]:
    """The words of a name without what people write differently: order, capitals, accents, hyphens."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    return sorted(re.findall(r"\w+", plain.casefold()))


def _is_name(given: list[str], known: str | None) -> bool:
    """Whether a name that was given is the known one, and a full one: a first name is told anyway."""
    return len(given) > 1 and given == _folded(known or "")


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
