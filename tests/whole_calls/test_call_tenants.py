"""Each tenant's calls are its own (PC-5): what the model is told, first words, tools, and whose the record is."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from fake_tools import MemoryDesk
from fault_calls import Leg, open_faulty_call, open_leg
from trio.testing import MockClock
from virtual_call import open_services, received

from agent.call.tools.builtin import DeskTools
from agent.call.tools.declare import Tool, make_tool
from agent.call.tools.declare import ToolCall as Who
from agent.carrier.media_stream import Start
from agent.carrier.stream_token import CallTicket
from agent.core.records import CallRecord
from agent.core.tenant import Tenant
from agent.sim.memory import memory_realtime
from agent.sim.model.script import Answer
from agent.sim.model.server import ScriptedRealtime

OURS = "+15552223333"
THEIRS = "+15554445555"
CLINIC = Tenant(
    "clinic",
    "Harbour Dental",
    (OURS,),
    language="pt-BR",
    time_zone="Asia/Tokyo",
    greeting="Bom dia.",
    voice="cedar",
    transfer_numbers=("+15557770001",),
    services=("implants", "cleaning"),
)


async def call_of(
    tenants: list[Tenant], caller: str, called: str, direction: Any = "inbound", **settings: Any
) -> tuple[CallRecord, dict[str, Any], ScriptedRealtime]:
    """One call: its record, the session the model was given, and the model."""
    model = ScriptedRealtime([Answer("Bom dia.", 600)])

    async def admit(start: Start) -> CallTicket:
        await trio.lowlevel.checkpoint()
        return CallTicket(start.call_sid, direction, caller, called)

    tools = (*DeskTools(MemoryDesk()).tools(), own_tool())
    async with open_services(memory_realtime(lambda: model), tools=tools, **settings) as services:
        services.calls.tenants.replace(tenants)
        async with open_leg(services, admit=admit) as leg:
            await greet_and_leave(leg)
    return services.record, received(model, "session.update")[0]["session"], model


async def greet_and_leave(leg: Leg) -> None:
    await leg.send(leg.writer.connected(), leg.writer.start({}))
    await trio.sleep(2)
    await leg.send(leg.writer.stop())


def own_tool() -> Tool:
    async def in_stock(call: Who, article: str) -> str:
        """Tell how many are in the shop."""
        return f"{article} {call.id}"

    return make_tool(in_stock)


def names(session: dict[str, Any]) -> list[str]:
    return [tool["name"] for tool in session["tools"]]


async def test_pc_5_a_tenants_call_is_as_the_tenant_wants_it(autojump_clock: MockClock) -> None:
    """PC-5: its words, voice, language, services, local time, tools; its greeting; its record."""
    record, session, model = await call_of([CLINIC], THEIRS, OURS)
    assert record.tenant_id == "clinic"
    told = session["instructions"]
    assert "receptionist on the phone" in told, "the settings' instructions, as the tenant has none"
    for fact in ("Harbour Dental", "Services: implants, cleaning.", "pt-BR", "(Asia/Tokyo)"):
        assert fact in told
    assert session["audio"]["output"]["voice"] == "cedar"
    assert session["audio"]["input"]["transcription"]["language"] == "pt"
    assert names(session) == [
        "end_call",
        "transfer_call",
        "create_appointment",
        "update_lead",
        "lookup_caller",
        "in_stock",
    ]
    [greeting] = received(model, "response.create")
    assert greeting["response"]["instructions"].endswith("Bom dia.")


async def test_pc_5_an_outbound_call_is_that_of_the_number_that_calls(autojump_clock: MockClock) -> None:
    record, *_ = await call_of([CLINIC], OURS, THEIRS, "outbound")
    assert (record.tenant_id, record.direction) == ("clinic", "outbound")


async def test_pc_5_a_tenant_allows_some_tools(autojump_clock: MockClock) -> None:
    """What it does not name is not offered; hanging up always is."""
    tenant = Tenant("clinic", "Clinic", (OURS,), tools=("update_lead", "in_stock", "transfer_call"))
    _, session, _ = await call_of([tenant], THEIRS, OURS)
    assert names(session) == ["end_call", "update_lead", "in_stock"], "there is nowhere to transfer to"


async def test_pc_5_its_own_instructions_are_told_as_they_are(autojump_clock: MockClock) -> None:
    tenant = Tenant("clinic", "Clinic", (OURS,), instructions="Only say hello. שלום")
    _, session, _ = await call_of([tenant], THEIRS, OURS)
    assert session["instructions"].splitlines()[0] == "Only say hello. שלום"
    assert "receptionist" not in session["instructions"]


@pytest.mark.parametrize("greeting", ["", None])
async def test_pc_5_the_caller_may_begin(autojump_clock: MockClock, greeting: str | None) -> None:
    """An empty greeting is none; a missing one is that of the settings."""
    tenant = Tenant("clinic", "Clinic", (OURS,), greeting=greeting)
    _, _, model = await call_of([tenant], THEIRS, OURS, greeting="Hello.")
    assert len(received(model, "response.create")) == (greeting is None)


async def test_pc_5_a_number_of_nobody_is_the_default_tenants(autojump_clock: MockClock) -> None:
    record, session, _ = await call_of([CLINIC], THEIRS, "+15550009999", language="he")
    assert record.tenant_id == "default"
    assert "Harbour" not in session["instructions"]
    assert session["audio"]["input"]["transcription"]["language"] == "he"


async def test_pc_5_the_stores_default_tenant_has_no_name_to_be_told(autojump_clock: MockClock) -> None:
    _, session, _ = await call_of([Tenant("default", "Default")], THEIRS, OURS)
    assert "Default" not in session["instructions"]


async def test_pc_5_a_stream_for_a_number_of_nobody_is_refused(autojump_clock: MockClock) -> None:
    """AGENT_UNKNOWN_NUMBER=refuse: the webhook refuses such calls; a stream that comes all the same, too."""

    async def admit(start: Start) -> CallTicket:
        await trio.lowlevel.checkpoint()
        return CallTicket(start.call_sid, "inbound", THEIRS, "+15550009999")

    model = ScriptedRealtime()
    async with open_services(memory_realtime(lambda: model), unknown_number="refuse") as services:
        services.calls.tenants.replace([CLINIC])
        async with open_leg(services, admit=admit) as leg:
            await leg.send(leg.writer.connected(), leg.writer.start({}))
            await leg.over.wait()
        assert services.calls.events.counts["STREAM_REFUSED"] == 1
    assert services.records.saved == []
    assert model.sessions == []


async def test_pc_5_a_tenant_changed_meanwhile_is_another_calls_matter(autojump_clock: MockClock) -> None:
    """A call keeps the tenant it began with, also in the model's next session."""
    model = ScriptedRealtime([Answer("Bom dia.", 600)])
    async with (
        open_services(memory_realtime(lambda: model), tenant=CLINIC) as services,
        open_faulty_call(services) as (
            stream,
            _,
        ),
    ):
        await stream.until_heard_ms(600)
        services.calls.tenants.default = Tenant("default", "")
        model.disconnect()
        await trio.sleep(5)
        await stream.hang_up()
    voices = [event["session"]["audio"]["output"]["voice"] for event in received(model, "session.update")]
    assert voices == ["cedar", "cedar"]
    assert services.record.tenant_id == "clinic"
