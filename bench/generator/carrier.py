"""The callers of a load run: one process, one WebSocket for each.

Started by ``bench.rig.players`` as ``python -m bench.generator.carrier``; prints the measured window as a line of
JSON, and leaves its report in a file.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import httpx
import msgspec
import uvloop
from picows import WSError, ws_connect
from twilio.request_validator import RequestValidator

from bench.generator.caller import Caller
from bench.generator.clockwork import Clockwork
from bench.generator.observations import CarrierCall, CarrierReport, Window
from bench.generator.plan import OUR_NUMBER, LoadPlan, Order, call_sid, number_of

ANSWER_S: Final = 15.0
"""How long a carrier waits for a webhook's answer."""
CLOSE_S: Final = 5.0
"""How long the agent may take to close a stream that was stopped."""


class _RefusedError(Exception):
    """The agent takes no call."""


async def _announce(
    client: httpx.AsyncClient, url: str, call: int, auth_token: str
) -> tuple[str, dict[str, str]]:
    """Ask the agent at ``url`` what to do with a call: the URL of its media stream and what to tell it.

    Raises _RefusedError, httpx.HTTPError, ET.ParseError, ValueError for TwiML that does neither.
    """
    fields = {
        "AccountSid": "AC" + "0" * 32,
        "CallSid": call_sid(call),
        "CallStatus": "ringing",
        "Direction": "inbound",
        "From": number_of(call),
        "To": OUR_NUMBER,
    }
    url = f"{url}/voice/incoming"
    answer = await client.post(url, data=fields, headers=_signature(url, fields, auth_token))
    twiml = ET.fromstring(answer.raise_for_status().text)  # noqa: S314 - the agent under test wrote it
    stream = twiml.find("./Connect/Stream")
    if stream is None:
        raise _RefusedError if twiml.find("./Say") is not None else ValueError(answer.text[:300])
    return stream.get("url", ""), {
        item.get("name", ""): item.get("value", "") for item in stream.findall("Parameter")
    }


def _signature(url: str, fields: dict[str, str], auth_token: str) -> dict[str, str]:
    """The header with which the carrier signs a request, if it signs."""
    if not auth_token:
        return {}
    return {"X-Twilio-Signature": str(RequestValidator(auth_token).compute_signature(url, fields))}


async def _call(
    client: httpx.AsyncClient,
    url: str,
    seen: CarrierCall,
    *,
    plan: LoadPlan,
    clockwork: Clockwork,
    leave_s: float,
) -> None:
    """One caller, from the first word to the end; what goes wrong is noted, others go on."""
    parameters: dict[str, str] = {}
    try:
        if url.startswith("http"):
            url, parameters = await _announce(client, url, seen.call, plan.auth_token)
        caller = Caller(seen, plan, clockwork, parameters, leave_s)
        transport, _ = await ws_connect(lambda: caller, url, extra_headers=_signature(url, {}, plan.auth_token))
    except _RefusedError:
        seen.refused, seen.failure = True, "the agent says that it is busy"
        seen.hung_up_s = time.monotonic()
        return
    except (OSError, WSError, ValueError, ET.ParseError, httpx.HTTPError) as error:
        seen.failure = str(error) or type(error).__name__
        seen.hung_up_s = time.monotonic()
        return
    try:
        async with asyncio.timeout(leave_s - time.monotonic() + CLOSE_S):
            await transport.wait_disconnected()
    except TimeoutError:
        seen.failure = seen.failure or "the agent did not close the stream"
        transport.disconnect(graceful=False)


async def phone(url: str, plan: LoadPlan) -> CarrierReport:
    """Make all calls of ``plan`` to the media stream at ``url``; at an http:// URL by the agent's webhook.

    Prints the window as one line of JSON first.
    """
    begin_s = time.monotonic() + plan.ramp_s + plan.warm_up_s
    window = Window(begin_s, begin_s + plan.seconds)
    print(msgspec.json.encode(window).decode(), flush=True)  # noqa: T201 - how the parent is told
    clockwork = Clockwork()
    numbers = range(plan.first, plan.first + plan.calls + plan.knocking)
    everybody = [CarrierCall(number, 0.0) for number in numbers]
    calls, knockers = everybody[: plan.calls], everybody[plan.calls :]
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with (
        # One for all: to make a client costs more than a call does.
        httpx.AsyncClient(timeout=ANSWER_S, limits=limits, trust_env=False) as client,
        asyncio.TaskGroup() as group,
    ):
        call = partial(_call, client, url, plan=plan, clockwork=clockwork)
        for seen in calls:
            leave_s = plan.leave_s(seen.call, window.begin_s, window.end_s)
            group.create_task(call(seen, leave_s=leave_s))
            await asyncio.sleep(plan.ramp_s / plan.calls)
        await asyncio.sleep(window.begin_s + plan.knocking_at_s - time.monotonic())
        for seen in knockers:
            group.create_task(call(seen, leave_s=window.end_s))
            await asyncio.sleep(plan.knocking_within_s / plan.knocking)
    return CarrierReport(window.begin_s, window.end_s, calls, clockwork.late_s, knockers)


def main() -> None:
    """Do what the order on the command line says."""
    order = msgspec.json.decode(sys.argv[1], type=Order)
    gc.disable()  # a process of minutes whose pauses are not what is measured
    report = uvloop.run(phone(order.url, order.plan))
    Path(order.result).write_bytes(msgspec.msgpack.encode(report))


if __name__ == "__main__":
    main()
