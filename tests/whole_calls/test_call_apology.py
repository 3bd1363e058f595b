"""MO-3: what is said without the model is said in the tenant's language, by who can say it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from xml.etree import ElementTree as ET

import pytest
import trio
from trio.testing import MockClock
from virtual_call import CALL_SID, FakeServices, counts, open_call, open_services

from agent.call.prompts import APOLOGY, UNAVAILABLE, prompt
from agent.carrier import twiml
from agent.core.audio_format import ULAW_8K
from agent.core.errors import SocketClosedError
from agent.core.records import Outcome
from agent.core.tenant import Tenant
from agent.core.units import CallSid
from agent.model.session import Connector
from agent.sim.carrier.stream import SimulatedStream
from agent.wire.websocket import MessageSocket

CALL = CallSid(CALL_SID)


def no_model() -> Connector:
    """Nobody answers where the model should be."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[MessageSocket]:
        await trio.lowlevel.checkpoint()
        raise SocketClosedError(1006, "no route")
        yield

    return connect


@asynccontextmanager
async def open_hopeless_call(
    language: str, *failures: str
) -> AsyncIterator[tuple[FakeServices, SimulatedStream]]:
    """A call of a tenant who speaks ``language``, to no model; over when it is left."""
    tenant = Tenant("shop", "Shop", language=language)
    async with open_services(no_model(), tenant=tenant, record_calls=False) as services:
        services.rest.failures.extend(failures)
        async with open_call(services) as stream:
            services.rest.streams[CALL] = stream
            yield services, stream
            await stream.until_closed()


@pytest.mark.parametrize("language", ["de", "he", "pt-BR"])
async def test_the_carrier_apologises_in_the_tenant_s_language(autojump_clock: MockClock, language: str) -> None:
    """Its words are not cut off by a hang-up of ours, and the end of the stream is not the caller's."""
    async with open_hopeless_call(language) as (services, stream):
        pass
    root = ET.fromstring(services.rest.instructed[CALL])  # noqa: S314 - our own
    assert [child.tag for child in root] == ["Say", "Hangup"]
    assert root[0].text in twiml.UNAVAILABLE.values()
    assert root[0].attrib["language"].startswith(language[:2])
    assert services.record.outcome is Outcome.MODEL_UNAVAILABLE
    assert [request.what for request in services.rest.requests] == ["instruct"]
    assert stream.heard_ms() == 0
    assert counts(services.record)["APOLOGY_LEFT_TO_CARRIER"] == 1


@pytest.mark.parametrize(("language", "failures"), [("en-GB", ()), ("", ()), ("tlh", ()), ("de", ("no route",))])
async def test_elsewhere_the_bundled_prompt_is_played(
    autojump_clock: MockClock, language: str, failures: tuple[str, ...]
) -> None:
    """In English, in languages that we have no words in, and where the carrier cannot be asked."""
    async with open_hopeless_call(language, *failures) as (services, stream):
        pass
    assert stream.playback.tape.audio().startswith(prompt(UNAVAILABLE, ULAW_8K))
    assert [turn.heard_text for turn in services.record.turns] == [APOLOGY]
    assert not services.rest.instructed
    assert services.record.outcome is Outcome.MODEL_UNAVAILABLE
    assert services.rest.hung_up == [CALL]
    assert counts(services.record)["APOLOGY_NOT_SAID"] == len(failures)


async def test_without_a_carrier_s_rest_the_bundled_prompt_is_played(autojump_clock: MockClock) -> None:
    tenant = Tenant("shop", "Shop", language="de")
    async with open_services(no_model(), tenant=tenant) as services:
        services.calls.rest = None
        async with open_call(services) as stream:
            await stream.until_closed()
    assert stream.playback.tape.audio().startswith(prompt(UNAVAILABLE, ULAW_8K))
