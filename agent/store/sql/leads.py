"""Leads and appointments: each once, whoever tells of it how often."""

from typing import Final

import attrs
from psycopg.rows import TupleRow, class_row

from agent.store.pg import Connection
from agent.store.sql.text import clean, key
from agent.store.sql.values import AppointmentRow, LeadRow, LeadUpdate, NewAppointment

STATUSES: Final = ("new", "contacted", "not_interested", "qualified", "appointment", "customer")
"""A lead's status only moves to the right: who has an appointment is not made new by a question about parking."""


async def upsert_lead(connection: Connection[TupleRow], update: LeadUpdate) -> int:
    """Make the lead of that phone, or add what was learnt; its id. Known values are not replaced by empty ones.

    Raises psycopg.errors.CheckViolation for a phone that is not E.164, or a status that is none.
    """
    row = await connection.fetch_one(
        """
        INSERT INTO leads AS l (tenant_id, phone, name, city, service, status, note, last_call_id)
        VALUES (%(tenant_id)s, %(phone)s, nullif(%(name)s, ''), nullif(%(city)s, ''), nullif(%(service)s, ''),
          coalesce(nullif(%(status)s, ''), 'new'), nullif(%(note)s, ''), %(call_id)s)
        ON CONFLICT (tenant_id, phone) DO UPDATE
        SET name = coalesce(excluded.name, l.name),
          city = coalesce(excluded.city, l.city),
          service = coalesce(excluded.service, l.service),
          note = coalesce(excluded.note, l.note),
          last_call_id = coalesce(excluded.last_call_id, l.last_call_id),
          status = CASE
            WHEN array_position(%(order)s::text[], excluded.status) > array_position(%(order)s::text[], l.status)
            THEN excluded.status
            ELSE l.status
          END,
          updated_at = now()
        RETURNING id
        """,
        {
            "order": list(STATUSES),
            **{
                name: clean(value) if isinstance(value, str) else value
                for name, value in attrs.asdict(update).items()
            },
        },
    )
    if row is None:
        raise AssertionError("an upsert returns its row")
    return int(row[0])


async def find_lead(connection: Connection[TupleRow], tenant_id: str, phone: str) -> LeadRow | None:
    """What is known of a phone number."""
    return await connection.fetch_one(
        """
        SELECT id, tenant_id, phone, name, city, service, status, note, created_at, updated_at
        FROM leads
        WHERE tenant_id = %(tenant_id)s AND phone = %(phone)s
        """,
        {"tenant_id": tenant_id, "phone": key(phone)},
        class_row(LeadRow),
    )


async def may_add_appointment(connection: Connection[TupleRow], new: NewAppointment, most_a_day: int) -> bool:
    """Whether fewer than ``most_a_day`` were made in 24 hours for its phone or by its caller, or this one was.

    To be asked in the transaction that makes it: others for them wait for its end.
    """
    values = {**attrs.asdict(new), "call_sid": key(new.call_sid), "tool_call_id": key(new.tool_call_id)}
    values |= {"caller": key(new.caller), "most": most_a_day}
    # Both at once, in one order for all.
    await connection.execute(
        """
        SELECT pg_advisory_xact_lock(hashtextextended(subject, 0))
        FROM (VALUES (%(tenant_id)s || ' ' || %(phone)s), (%(tenant_id)s || ' ' || %(caller)s)) AS of (subject)
        ORDER BY subject
        """,
        values,
    )
    # Withheld numbers are all the same, and not the same caller.
    row = await connection.fetch_one(
        """
        SELECT count(*) < %(most)s::bigint OR EXISTS (
          SELECT FROM appointments
          WHERE (call_sid, tool_call_id) = (%(call_sid)s, %(tool_call_id)s)
            OR (tenant_id, phone, starts_at) = (%(tenant_id)s, %(phone)s, %(starts_at)s))
        FROM appointments
        WHERE tenant_id = %(tenant_id)s AND created_at > now() - interval '1 day' AND (
          phone IN (%(phone)s, %(caller)s)
          OR starts_with(%(caller)s, '+') AND call_sid IN (
            SELECT call_sid FROM calls
            WHERE tenant_id = %(tenant_id)s AND caller = %(caller)s AND answered_at > now() - interval '2 days'))
        """,
        values,
    )
    return bool(row and row[0])


async def add_appointment(connection: Connection[TupleRow], new: NewAppointment) -> tuple[int, bool]:
    """Make an appointment, with its lead; its id, and whether it is new.

    The same call of the tool, and the same person at the same time, is the same appointment.
    """
    async with connection.transaction():
        lead_id = await upsert_lead(
            connection,
            LeadUpdate(new.tenant_id, new.phone, name=new.name, service=new.service, status="appointment"),
        )
        values = attrs.asdict(new) | {
            "call_sid": key(new.call_sid),
            "tool_call_id": key(new.tool_call_id),
            "lead_id": lead_id,
            "service": clean(new.service),
            "name": clean(new.name),
            "note": clean(new.note),
        }
        # The appointment, unless there is one like it.
        row = await connection.fetch_one(
            """
            INSERT INTO appointments (tenant_id, call_id, call_sid, tool_call_id, lead_id, starts_at, service,
              name, phone, note)
            VALUES (%(tenant_id)s, (SELECT id FROM calls WHERE call_sid = %(call_sid)s), %(call_sid)s,
              %(tool_call_id)s, %(lead_id)s, %(starts_at)s, %(service)s, %(name)s, %(phone)s, %(note)s)
            ON CONFLICT DO NOTHING
            RETURNING id
            """,
            values,
        )
        if row is not None:
            return int(row[0]), True
        # The one like it.
        row = await connection.fetch_one(
            """
            SELECT id FROM appointments
            WHERE (call_sid, tool_call_id) = (%(call_sid)s, %(tool_call_id)s)
              OR (tenant_id, phone, starts_at) = (%(tenant_id)s, %(phone)s, %(starts_at)s)
            ORDER BY tool_call_id = %(tool_call_id)s DESC
            LIMIT 1
            """,
            values,
        )
        if row is None:
            raise AssertionError("what stands in the way can be seen")
        return int(row[0]), False


async def appointments_of(
    connection: Connection[TupleRow], tenant_id: str, phone: str, limit: int = 10
) -> list[AppointmentRow]:
    """The appointments of a phone number, the latest first."""
    return await connection.fetch_all(
        """
        SELECT id, starts_at, service, name, phone, note FROM appointments
        WHERE tenant_id = %(tenant_id)s AND phone = %(phone)s
        ORDER BY starts_at DESC
        LIMIT %(limit)s
        """,
        {"tenant_id": tenant_id, "phone": key(phone), "limit": limit},
        class_row(AppointmentRow),
    )


async def appointments_in(connection: Connection[TupleRow], call_id: int) -> list[AppointmentRow]:
    """The appointments made in a call."""
    return await connection.fetch_all(
        """
        SELECT id, starts_at, service, name, phone, note FROM appointments
        WHERE call_id = %(call_id)s
        ORDER BY starts_at
        """,
        {"call_id": call_id},
        class_row(AppointmentRow),
    )
