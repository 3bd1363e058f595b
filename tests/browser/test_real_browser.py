"""The page in a real Chromium, with the embedded model: what is spoken, heard, shown and recorded.

Debian's Chromium is driven by Playwright: ``apt-get install chromium``. Without it these tests are skipped.
"""

import json
import os
import subprocess
import sys
import threading
import wave
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.audio.ulaw import ulaw_to_pcm16
from agent.sim.sounds import silence
from bench.parts.browser.chromium import HOW_TO_GET_IT, chromium

SUPPORT = Path(__file__).parent.parent / "support"
ROOT = SUPPORT.parent.parent
pytestmark = [
    pytest.mark.sockets,
    pytest.mark.speech,
    pytest.mark.skipif(not (find_spec("playwright") and chromium()), reason=HOW_TO_GET_IT),
]
AT_MOST_S = 120


def write_wav(path: Path, audio: bytes) -> Path:
    """8 kHz mu-law as a file that Chromium takes for a microphone."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(ulaw_to_pcm16(audio).tobytes())
    return path


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A question after the greeting, and another one into its answer."""
    pytest.importorskip("hibari")
    from agent.local.speech.samples import synthesise  # noqa: PLC0415 - it needs the [local] extra

    audio = silence(4500) + synthesise("What are your opening hours?")
    audio += silence(4500) + synthesise("Where are you?") + silence(30_000)
    return write_wav(tmp_path_factory.mktemp("microphone") / "microphone.wav", audio)


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
    """``call-agent talk`` with the embedded model: its page, and where its records are."""
    folder = tmp_path_factory.mktemp("agent")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AGENT_", "OPENAI_"))}
    set_to = {"AGENT_ADMIN_PORT": "0", "AGENT_DRAIN_S": "0", "PYTHONPATH": str(ROOT)}
    set_to["AGENT_BROWSER_ORIGINS"] = origin_of(sites[0])
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "agent", "talk", "--port", "0", "--no-open"],
        cwd=folder,
        env={**kept, **set_to},
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    try:
        assert process.stdout is not None
        page = next((line.split()[-1] for line in process.stdout if line.startswith("Talk to the agent")), "")
        assert page, (folder / "log").read_text()
        yield page, folder / "data"
    finally:
        process.terminate()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()
        log.close()


def call_agent(folder: Path, *arguments: str) -> None:
    """Run a command beside the server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AGENT_", "OPENAI_"))}
    command = [sys.executable, "-m", "agent", *arguments]
    subprocess.run(command, cwd=folder, env={**kept, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True)


def drive(what: str, *arguments: object) -> dict[str, Any]:
    """Have a program drive Chromium; what it reports."""
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "chromium_page.py"), what, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=AT_MOST_S,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def newest_record(data: Path) -> dict[str, Any]:
    """The record of the last call."""
    newest = max((data / "calls").glob("BR*.json"), key=lambda path: path.stat().st_mtime)
    record: dict[str, Any] = json.loads(newest.read_text("utf-8"))
    return record


def heard_ms(record: dict[str, Any]) -> int:
    """What the record says was heard of the agent."""
    return sum(turn["heard_ms"] for turn in record["turns"] if turn["role"] == "agent")


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
    assert abs(int(report["playedMs"]) - heard_ms(record)) <= 40 + 20 * len(agent)
    assert report["latency"].count(" ms = ") == 2


def test_a_network_that_is_away_for_five_seconds(server: tuple[str, Path], microphone: Path) -> None:
    """The same call goes on, and is heard to its end: no word is lost, none is played twice."""
    page, data = server
    report = drive("cut", page, microphone)
    record = newest_record(data)
    assert report["states"] == ["talking", "reconnecting"]
    assert report["call"] == "ended"
    assert "BROWSER_BACK" in [event["kind"] for event in record["timeline"]] or record["metrics"]["events"]
    assert abs(int(report["playedMs"]) - heard_ms(record)) <= 40 + 20 * len(record["turns"])


def test_a_microphone_that_is_refused_is_a_sentence(server: tuple[str, Path]) -> None:
    report = drive("refused", server[0], "")
    assert report["call"] == "error"
    assert "Allow it" in report["trouble"]


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
