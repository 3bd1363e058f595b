"""The page in a real Chromium, with the embedded model: what is spoken, heard, shown and recorded.

Debian's Chromium is driven by Playwright: ``apt-get install chromium``. Without it these tests are skipped.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from real_page import (
    AT_MOST_S,
    ROOT,
    SUPPORT,
    call_agent,
    drive,
    needs_chromium,
    newest_record,
    open_talk,
    write_conversation,
    write_microphone,
)

from agent.sim.sounds import silence
from bench.parts.browser.measuring import heard_errors_ms
from bench.parts.browser.talking import open_server

pytestmark = needs_chromium()


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A question after the greeting, and another one into its answer."""
    return write_conversation(tmp_path_factory.mktemp("microphone") / "microphone.wav")


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody who says nothing."""
    return write_microphone(tmp_path_factory.mktemp("microphone") / "silent.wav", silence(60_000))


@pytest.fixture(scope="module")
def sites() -> Iterator[list[ThreadingHTTPServer]]:
    """Two other sites on this machine; ``127.0.0.1`` and another port are not ``localhost`` to a browser."""
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Site) for _ in range(2)]
    for site in servers:
        threading.Thread(target=site.serve_forever, daemon=True).start()
    yield servers
    for site in servers:
        site.shutdown()
        site.server_close()


def origin_of(site: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{site.server_address[1]}"


class Site(BaseHTTPRequestHandler):
    """A page with the widget; the path names the port it comes from, and the tenant."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        port, _, tenant = self.path.removeprefix("/").partition("/")  # favicon.ico, too
        source = f"http://localhost:{port}/widget.js"
        script = f'<script src="{source}" data-tenant="{tenant}" data-label="Talk to us"></script>'
        self.wfile.write(f"<!doctype html><title>Shop</title><body>{script}</body>".encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, sites: list[ThreadingHTTPServer]
) -> Iterator[tuple[str, Path]]:
    """The page of an agent, and where its records are."""
    with open_talk(tmp_path_factory.mktemp("agent"), AGENT_BROWSER_ORIGINS=origin_of(sites[0])) as served:
        yield served


def test_a_spoken_conversation_with_an_interruption(server: tuple[str, Path], microphone: Path) -> None:
    """By keyboard alone: greeted, asked, interrupted, answered; the page played what counts as heard."""
    page, data = server
    report = drive("talk", page, microphone)
    record = newest_record(data)
    agent = [turn for turn in record["turns"] if turn["role"] == "agent"]
    caller = [turn["text"] for turn in record["turns"] if turn["role"] == "caller"]
    assert report["call"] == "ended"
    assert record["outcome"] == "caller_hung_up"
    assert agent[0]["heard_text"].startswith("Hello")
    assert any("opening hours" in text.lower() for text in caller)
    assert [turn["interrupted"] for turn in agent].count(True) == 1
    assert "interrupted" in report["captions"]
    for turn in agent:
        assert turn["heard_text"] in report["captions"].replace("\n", " ")
    errors = heard_errors_ms(report["played"], record)
    assert len(errors) == len(agent)
    assert max(map(abs, errors)) <= 150  # on a machine that does other things; `bench browser` holds 40
    assert report["latency"].count(" ms = ") == 2


def test_a_network_that_is_away_for_five_seconds(server: tuple[str, Path], silent: Path) -> None:
    """The same call goes on, and the greeting is heard to its end: no word is lost, none is played twice."""
    page, data = server
    report = drive("cut", page, silent)
    record = newest_record(data)
    assert report["states"] == ["talking", "reconnecting"]
    assert report["call"] == "ended"
    [greeting] = record["turns"]
    assert greeting["heard_ms"] == greeting["audio_ms"]
    assert heard_errors_ms(report["played"], record) == [0]
    assert sum(report["played"].values()) < greeting["audio_ms"] + 20


@pytest.mark.parametrize(
    ("how", "sentences"),
    [
        (signal.SIGTERM, ("The server was stopped.",)),
        (signal.SIGKILL, ("The call is over on the server's side.", "The connection was lost")),
    ],
)
def test_a_server_that_is_started_again_in_mid_call(
    how: signal.Signals, sentences: tuple[str, ...], tmp_path: Path, silent: Path
) -> None:
    """Asked to end, it says so; killed, the page comes back to one that knows no such call, or is not there yet.

    The next call is good, without loading the page again.
    """
    program = [sys.executable, str(SUPPORT / "chromium_page.py"), "restart"]
    with open_server(tmp_path) as server:
        port = int(server.page.rstrip("/").rpartition(":")[2])
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        tab = subprocess.Popen([*program, server.page, str(silent)], env=environment, **pipes)
        assert tab.stdout is not None
        assert tab.stdout.readline() == "talking\n"
        server.process.send_signal(how)
        server.process.wait(30)
    with open_server(tmp_path, port=port):
        answer, _ = tab.communicate("go on\n", timeout=AT_MOST_S)
    report = json.loads(answer)
    assert report["trouble"].startswith(sentences)
    assert report["call"] == "ended"


def test_a_microphone_that_is_refused_is_a_sentence(server: tuple[str, Path]) -> None:
    report = drive("refused", server[0], "")
    assert report["call"] == "error"
    assert "Allow it" in report["trouble"]


def test_a_microphone_that_is_unplugged_ends_the_call_at_once(server: tuple[str, Path], silent: Path) -> None:
    """A sentence for the caller; for the server a hang-up, not a browser that it waits for."""
    page, data = server
    before = len(list(data.glob("calls/BR*.json")))
    report = drive("unplugged", page, silent)
    assert report["trouble"].startswith("The microphone was unplugged. Plug it in")
    assert len(list(data.glob("calls/BR*.json"))) == before + 1
    assert newest_record(data)["outcome"] == "caller_hung_up"


def test_the_widget_on_a_site_that_is_allowed_and_on_one_that_is_not(
    server: tuple[str, Path], microphone: Path, sites: list[ThreadingHTTPServer]
) -> None:
    """One line of HTML is the phone; a site that is named nowhere says so, and the browser shows it no frame.

    A tenant's own site phones that tenant, and no other.
    """
    page, data = server
    port = page.rstrip("/").rpartition(":")[2]
    everybodys, shops = map(origin_of, sites)
    call_agent(data.parent, "tenants", "add", "Shop", "--origin", shops)
    assert drive("widget", f"{everybodys}/{port}/", microphone) == {"shown": True}
    assert drive("widget", f"{shops}/{port}/shop", microphone) == {"shown": True}
    refused = drive("widget", f"{shops}/{port}/", microphone)
    assert not refused["shown"]
    assert f"pages of {shops} may not phone" in refused["notice"]
    assert refused["framed"] is False


def test_the_page_is_small(server: tuple[str, Path]) -> None:
    page, _ = server
    total = 0
    with httpx.Client(trust_env=False) as client:
        for path in ("", "browser/page/page.css", "browser/page/app.js", "browser/page/line.js"):
            answer = client.get(f"{page}{path}")
            assert answer.status_code == httpx.codes.OK
            total += len(answer.content)
    assert total < 100_000
