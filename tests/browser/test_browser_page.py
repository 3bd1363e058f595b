"""The page as it is served: whole, self-contained, and with the headers that hold it to that."""

import re
from collections import Counter
from importlib.resources import files

import pytest
import trio
from fastapi import FastAPI
from trio.testing import MockClock, memory_stream_pair

from agent.browser.admission import BrowserAdmission
from agent.browser.messages import PCM16, VERSION, WEBM_OPUS, Close
from agent.browser.routes import browser_routes
from agent.carrier.front_door import FrontDoor
from agent.core.event_log import EventLog
from agent.core.telemetry import Telemetry

PAGE = {entry.name: entry.read_bytes() for entry in files("agent.browser").joinpath("page").iterdir()}
SITE = "https://shop.example"


CLINIC = "https://clinic.example"
OF_TENANTS = {"": frozenset[str](), "clinic": frozenset({CLINIC}), None: frozenset({CLINIC})}


async def ask(path: str, method: str = "GET", fields: str = "", *sites: str) -> tuple[str, str]:
    """The head and the body of an answer."""
    app = FastAPI()
    app.include_router(browser_routes(BrowserAdmission(frozenset(sites), OF_TENANTS.get), [PCM16, WEBM_OPUS]))
    ours, theirs = memory_stream_pair()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(FrontDoor(app, EventLog(Telemetry())).serve_connection, theirs)
            request = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n"
            await ours.send_all(request.encode())
            answer = b"".join([bytes(part) async for part in ours])
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode().lower(), body.decode()


@pytest.mark.parametrize("path", ["/", "/widget", "/widget.js", *(f"/browser/page/{name}" for name in PAGE)])
async def test_every_part_is_served(path: str, autojump_clock: MockClock) -> None:
    head, body = await ask(path)
    assert head.startswith("http/1.1 200")
    assert body.encode() in PAGE.values()
    assert "x-content-type-options: nosniff" in head
    [etag] = re.findall(r"etag: (.*)", head)
    again, nothing = await ask(path, "GET", f"If-None-Match: {etag.strip()}\r\n")
    assert again.startswith("http/1.1 304")
    assert nothing == ""


async def test_only_named_sites_may_have_it_in_a_frame(autojump_clock: MockClock) -> None:
    assert "frame-ancestors 'none'" in (await ask("/", "GET", "", SITE))[0]
    assert f"frame-ancestors 'self' {SITE}" in (await ask("/widget", "GET", "", SITE))[0]
    assert re.search(r"frame-ancestors 'self'\r?$", (await ask("/widget"))[0], re.MULTILINE)


async def test_who_may_not_phone_is_told_why(autojump_clock: MockClock) -> None:
    """A memory stream has no address, so it is not this machine's."""
    head, body = await ask("/browser/token", "POST", "Content-Length: 0\r\n")
    assert head.startswith("http/1.1 403")
    assert "AGENT_BROWSER_ORIGINS" in body
    head, body = await ask("/browser/token", "POST", f"Content-Length: 0\r\nOrigin: {SITE}\r\n", SITE)
    assert head.startswith("http/1.1 200")
    assert '"token"' in body
    assert '"formats":["pcm16","webm/opus"]' in body, "what the page may be asked to send (WB-4)"


async def test_a_tenants_sites_may_have_its_phone_and_no_other(autojump_clock: MockClock) -> None:
    """The browser holds a site to its tenant by the frame's ancestors; no such tenant, no foreign frame."""
    assert f"frame-ancestors 'self' {CLINIC} {SITE}" in (await ask("/widget?tenant=clinic", "GET", "", SITE))[0]
    assert f"frame-ancestors 'self' {SITE}\r" in (await ask("/widget", "GET", "", SITE))[0]
    assert "frame-ancestors 'self'\r" in (await ask("/widget?tenant=nobody", "GET", "", SITE))[0]


async def test_the_widget_is_told_why_its_site_may_not_phone(autojump_clock: MockClock) -> None:
    """Any site may ask for the sentence."""
    path = "/browser/site?tenant=clinic"
    head, body = await ask(path, "GET", f"Origin: {CLINIC}\r\n")
    assert "access-control-allow-origin: *" in head
    assert body == '{"detail":""}'
    assert f"pages of {SITE} may not phone" in (await ask(path, "GET", f"Origin: {SITE}\r\n"))[1]
    assert "nobody answers" in (await ask("/browser/site?tenant=x", "GET", f"Origin: {SITE}\r\n", SITE))[1]


async def test_a_token_is_for_a_tenant_there_is(autojump_clock: MockClock) -> None:
    asked = 'Content-Type: application/json\r\nContent-Length: 19\r\n\r\n{"tenant":"nobody"}'
    head, body = await ask("/browser/token", "POST", f"Origin: {SITE}\r\n{asked}", SITE)
    assert head.startswith("http/1.1 404")
    assert "nobody answers" in body


async def test_what_is_no_part_of_it_is_not_there(autojump_clock: MockClock) -> None:
    assert (await ask("/browser/page/..%2froutes.py"))[0].startswith("http/1.1 404")


def test_it_is_small_and_needs_nothing_from_elsewhere() -> None:
    assert sum(map(len, PAGE.values())) < 100_000
    for name, content in PAGE.items():
        elsewhere = set(
            re.findall(r"""(?:src|href|from|import|url)\W{1,3}(https?://[^"'\s)]+)""", content.decode())
        )
        assert not elsewhere - {"https://agent.example.com/widget.js"}, name


def test_the_page_and_the_server_speak_the_same_release() -> None:
    line, trouble = PAGE["line.js"].decode(), PAGE["trouble.js"].decode()
    assert f"const VERSION = {VERSION};" in line
    codes = {value for name, value in vars(Close).items() if name.isupper()}
    assert {int(code) for code in re.findall(r"\b(4\d\d\d):", trouble)} == codes


def test_every_sentence_is_there_in_both_languages() -> None:
    """And every trouble that the page can have has one."""
    words = PAGE["words.js"].decode()
    english, hebrew = (
        words[words.index(f"  {language}: {{") :].partition("\n  },")[0] for language in ("en", "he")
    )
    keys = [set(re.findall(r"\b(\w+): \"", part)) for part in (english, hebrew)]
    assert keys[0] == keys[1]
    troubles = set(re.findall(r'new Trouble\("(\w+)"', PAGE["audio.js"].decode() + PAGE["line.js"].decode()))
    troubles |= set(
        re.findall(r'(?:end|finish)\((?:mine, )?"(\w+)"', PAGE["line.js"].decode() + PAGE["app.js"].decode())
    )
    troubles |= set(re.findall(r'4\d\d\d: "(\w+)"', PAGE["trouble.js"].decode()))
    assert troubles
    assert troubles <= keys[0]
    repeated = [word for word, count in Counter(re.findall(r"\b(\w+): \"", english)).items() if count > 1]
    assert not repeated
