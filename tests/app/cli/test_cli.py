"""The command line: help that teaches, errors in one sentence, the doctor's findings, and a call out."""

import os
import socket
import subprocess
import sys
import types
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import trio
import typer
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from typer.testing import CliRunner

from agent.app.cli.app import app as cli
from agent.app.cli.dial import ServerUnreachableError, dial
from agent.app.cli.doctor.checks import examine, judge_models
from agent.app.cli.doctor.findings import Finding, is_healthy
from agent.app.server import serve
from agent.core.errors import CarrierError, SettingsError
from agent.core.settings import Settings, load_settings
from agent.sim.carrier.twilio import SimulatedTwilio, open_simulated_twilio
from agent.sim.model.rest import OpenAiRest
from agent.sim.model.script import Answer
from agent.sim.model.server import ScriptedRealtime, serve_realtime
from agent.sim.serving import serve_app

NUMBER, CALLEE = "+15552223333", "+15550001111"
ACCOUNT, AUTH = "AC" + "a" * 32, "token of the account"
KEY = "sk-very-secret"
PREFIXES = ("AGENT_", "OPENAI_", "TWILIO_", "DATABASE_URL", "DEBUG_TX")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting and no .env of whoever runs the tests."""
    for name in os.environ:
        if name.startswith(PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, list(arguments))
    return result.exit_code, result.output


@pytest.mark.parametrize("arguments", [("--help",), ()])
def test_help_names_every_command(arguments: tuple[str, ...]) -> None:
    _, text = run(*arguments)
    for command in ("serve", "worker", "dial", "calls", "tenants", "doctor", "demo"):
        assert command in text


@pytest.mark.parametrize("command", ["serve", "worker", "dial", "doctor"])
def test_every_command_explains_itself(command: str) -> None:
    status, text = run(command, "--help")
    assert status == 0
    assert len(text) > 300


def test_the_demo_lives_in_its_own_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its options are declared there, its help comes from there, and its errors are told as all others."""

    def command(calls: int = 80) -> None:
        """Do what nobody else does."""
        raise SettingsError(f"{calls} calls are too many")

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    monkeypatch.setitem(sys.modules, "agent.app.demo.command", types.SimpleNamespace(app=app))
    status, text = run("demo", "--help")
    assert (status, "Do what nobody else does." in text, "--calls" in text) == (0, True, True)
    assert run("demo", "--calls", "81") == (2, "call-agent: 81 calls are too many\n")
    assert run("demo", "--calls", "many")[0] == 2


@pytest.mark.parametrize(
    "arguments",
    [("serve", "--port", "99999"), ("serve", "--nonsense"), ("nonsense",), ("dial",), ("dial", "5551234")],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    status, text = run(*arguments)
    assert status == 2
    assert "Traceback" not in text


def test_wrong_settings_are_all_named_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_PORT", "many")
    monkeypatch.setenv("AGENT_PUBLIC_URL", "agent.example.com")
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "hush")
    for command in (["serve"], ["doctor"], ["dial", CALLEE]):
        status, text = run(*command)
        assert status == 2
        assert "AGENT_PORT" in text
        assert "AGENT_PUBLIC_URL" in text
        assert "hush" not in text


def test_dial_names_everything_it_needs() -> None:
    status, text = run("dial", "12345")
    assert status == 2
    for name in ("NUMBER", "TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_NUMBER", "AGENT_PUBLIC_URL"):
        assert name in text


@pytest.mark.sockets
def test_a_taken_port_is_one_sentence_and_exit_status_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "agent", "serve", "--host", "127.0.0.1", "--port", port],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
            env={"PATH": "/usr/bin:/bin", "OPENAI_API_KEY": KEY},
        )
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]  # after the log's lines
    assert said.startswith("call-agent: ")
    assert "Address already in use" in said
    assert "Traceback" not in done.stderr


@pytest.mark.sockets
def test_help_answers_without_loading_the_server() -> None:
    """The command line stays quick: nothing of the server, the model or plotting is imported for it."""
    unwanted = ["fastapi", "openai", "twilio", "trio_websocket", "matplotlib", "numpy", "h11"]
    code = f"import sys, agent.app.cli.app; sys.exit(', '.join(m for m in {unwanted} if m in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=30, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# The world the doctor and dial look at.


@asynccontextmanager
async def open_asgi(app: FastAPI) -> AsyncIterator[str]:
    """Serve ``app`` on a free port; yields its URL."""
    async with trio.open_nursery() as nursery:
        yield await nursery.start(serve_app, app)
        nursery.cancel_scope.cancel()


def neighbours(*, ready: bool = True) -> FastAPI:
    """OpenAI's list of models and our own health routes, on one port."""
    app = OpenAiRest(api_key=KEY).make_app()

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    return app


@asynccontextmanager
async def open_surroundings(tmp_path: Path, **more: Any) -> AsyncIterator[tuple[Settings, SimulatedTwilio]]:
    """Settings with which everything is as it should be, but for ``more``."""
    with trio.fail_after(20):
        async with (
            open_asgi(neighbours()) as ours,
            open_simulated_twilio(
                agent_url=ours, auth_token=AUTH, account_sid=ACCOUNT, numbers=[NUMBER]
            ) as twilio,
        ):
            settings: dict[str, Any] = {
                "host": "127.0.0.1",
                "port": 0,
                "data_dir": tmp_path / "data",
                "public_url": ours,
                "openai_api_key": KEY,
                "openai_base_url": f"{ours}/v1",
                "twilio_account_sid": ACCOUNT,
                "twilio_auth_token": AUTH,
                "twilio_number": NUMBER,
                "twilio_api_url": twilio.api_url,
            }
            yield load_settings(**settings | more), twilio


async def findings_of(settings: Settings) -> dict[str, Finding]:
    findings = await examine(settings)
    text = repr(findings)
    assert KEY not in text
    assert AUTH not in text
    return {finding.subject: finding for finding in findings}


@pytest.mark.sockets
@pytest.mark.speech
async def test_the_doctor_finds_nothing_wrong_where_nothing_is(tmp_path: Path) -> None:
    async with open_surroundings(tmp_path) as (settings, _):
        findings = await findings_of(settings)
        assert is_healthy(list(findings.values()))
        assert findings.pop("public URL").detail.endswith("not encrypted")
        assert {finding.state for finding in findings.values()} == {"ok"}
        assert not (tmp_path / "data").exists()


@pytest.mark.sockets
@pytest.mark.parametrize(
    ("change", "subject", "words"),
    [
        ({"openai_api_key": "sk-wrong"}, "model", "OPENAI_API_KEY"),
        ({"openai_base_url": "http://127.0.0.1:1/v1"}, "model", "OPENAI_BASE_URL"),
        ({"model": "gpt-of-tomorrow"}, "model", "AGENT_MODEL"),
        ({"transcription_model": "scribe"}, "transcription model", "AGENT_TRANSCRIPTION_MODEL"),
        ({"summary_model": "gpt-of-old"}, "summary model", "AGENT_SUMMARY_MODEL"),
        ({"recording_model": "scribe"}, "recording model", "AGENT_RECORDING_MODEL"),
        ({"public_url": "http://127.0.0.1:1"}, "public URL", "call-agent serve"),
        ({"twilio_auth_token": "wrong"}, "Twilio account", "TWILIO_AUTH_TOKEN"),
        ({"twilio_api_url": "http://127.0.0.1:1"}, "Twilio account", "TWILIO_ACCOUNT_SID"),
        ({"twilio_number": "+15559999999"}, "Twilio number", "TWILIO_NUMBER"),
        ({"data_dir": "/proc/none"}, "data directory", "AGENT_DATA_DIR"),
        ({"host": "192.0.2.1"}, "port", "AGENT_HOST"),
    ],
)
async def test_the_doctor_names_what_is_wrong_and_what_to_do(
    tmp_path: Path, change: dict[str, Any], subject: str, words: str
) -> None:
    async with open_surroundings(tmp_path, **change) as (settings, _):
        findings = await findings_of(settings)
        assert findings[subject].state == "problem"
        assert words in findings[subject].advice
        assert not is_healthy(list(findings.values()))


@pytest.mark.parametrize(
    ("end", "state", "words"),
    [
        (None, "ok", "no end"),
        ("", "ok", "no end"),
        ("2027-02-26", "ok", "in 61 days"),
        ("2027-02-25", "todo", "in 60 days"),
        ("2026-12-27", "todo", "in 0 days"),
        ("2026-12-26", "problem", "ended on"),
        ("next spring", "todo", "not a date"),
    ],
)
def test_the_doctor_counts_the_days_that_a_model_has_left(end: str | None, state: str, words: str) -> None:
    settings = load_settings(openai_api_key=KEY, model="a", summary_model="b", recording_model="c")
    listed = {"a": None, "b": end, "c": None}
    realtime, summary, recording = judge_models(settings, listed, date(2026, 12, 27))
    assert {realtime.state, recording.state} == {"ok"}
    assert (summary.subject, summary.state) == ("summary model", state)
    assert words in summary.detail
    assert ("AGENT_SUMMARY_MODEL" in summary.advice) == (state != "ok")


def test_the_doctor_says_when_nobody_writes_down_what_callers_say() -> None:
    settings = load_settings(openai_api_key=KEY, record_calls=False)
    *others, words = judge_models(settings, {}, date(2026, 12, 27))
    assert {finding.state for finding in others} == {"ok"}, "a server that lists nothing is believed"
    assert (words.subject, words.state) == ("transcription model", "todo")
    assert "AGENT_RECORD=1" in words.advice


@pytest.mark.sockets
async def test_a_number_that_rings_elsewhere_is_a_problem(tmp_path: Path) -> None:
    async with open_surroundings(tmp_path) as (settings, twilio):
        twilio.numbers[NUMBER] = "https://demo.twilio.com/welcome/voice/"
        finding = (await findings_of(settings))["Twilio number"]
        assert finding.state == "problem"
        assert "demo.twilio.com" in finding.detail
        assert f"{settings.public_url}/voice/incoming" in finding.advice


@pytest.mark.sockets
async def test_a_port_is_fine_when_it_is_free_or_ours(tmp_path: Path) -> None:
    async with open_surroundings(tmp_path) as (settings, _):
        ours = int(settings.public_url.rpartition(":")[2])
        finding = (await findings_of(settings.model_copy(update={"port": ours})))["port"]
        assert (finding.state, "serving" in finding.detail) == ("ok", True)
        async with open_asgi(FastAPI()) as other:
            taken = settings.model_copy(update={"port": int(other.rpartition(":")[2])})
            finding = (await findings_of(taken))["port"]
        assert finding.state == "problem"


@pytest.mark.sockets
async def test_without_any_key_only_the_embedded_model_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh machine is healthy when the extra is there; the rest is what to do for real calls."""
    monkeypatch.setattr("agent.app.cli.doctor.checks.check_installed", lambda: None)
    findings = await findings_of(load_settings(host="127.0.0.1", port=0, data_dir=tmp_path))
    assert is_healthy(list(findings.values()))
    states = {subject: finding.state for subject, finding in findings.items()}
    assert states["embedded model"] == "ok"
    assert {states["public URL"], states["Twilio account"], states["Twilio number"]} == {"todo"}


@pytest.mark.sockets
def test_the_doctor_s_table_and_exit_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_HOST", "127.0.0.1")
    monkeypatch.setenv("AGENT_PORT", "0")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("agent.app.cli.doctor.checks.check_installed", lambda: None)
    status, text = run("doctor")
    assert status == 0
    assert "[local]" in text
    assert "to do" in text
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("AGENT_DATA_DIR", str(blocked / "data"))
    status, text = run("doctor")
    assert status == 1
    assert "AGENT_DATA_DIR" in text


@pytest.mark.sockets
async def test_dial_needs_a_running_server(tmp_path: Path) -> None:
    async with open_surroundings(tmp_path, public_url="http://127.0.0.1:1") as (settings, twilio):
        with pytest.raises(ServerUnreachableError, match="call-agent serve"):
            await dial(settings, CALLEE, machine_detection=False)
        async with open_asgi(neighbours(ready=False)) as starting:
            changed = settings.model_copy(update={"public_url": starting})
            with pytest.raises(ServerUnreachableError, match="answers 503"):
                await dial(changed, CALLEE, machine_detection=False)
        assert twilio.api.requests == []


@pytest.mark.sockets
async def test_dial_reports_what_twilio_says(tmp_path: Path) -> None:
    async with open_surroundings(tmp_path, twilio_auth_token="wrong") as (settings, _):  # noqa: S106
        with pytest.raises(CarrierError, match="HTTP 401"):
            await dial(settings, CALLEE, machine_detection=False)
        with pytest.raises(SettingsError, match=r"E\.164"):
            await dial(settings, "00123", machine_detection=False)


@pytest.mark.sockets
@pytest.mark.parametrize("answers", ["human", "machine_start"])
async def test_dial_reaches_a_human_and_hangs_up_on_a_machine(tmp_path: Path, answers: Any) -> None:
    """Scenario C's beginning: Twilio calls, asks the running server, and the greeting is heard."""
    heard: list[int] = []
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    url = f"http://127.0.0.1:{port}"

    async def callee(stream: Any) -> None:
        await stream.until_heard_ms(400)
        heard.append(stream.heard_ms())
        await stream.hang_up()

    with trio.fail_after(20):
        async with (
            trio.open_nursery() as nursery,
            open_simulated_twilio(agent_url=url, auth_token=AUTH, account_sid=ACCOUNT) as twilio,
        ):
            twilio.callee, twilio.callee_answers = callee, answers
            model = await nursery.start(serve_realtime, 0, lambda: ScriptedRealtime([Answer("Hello!", 500)]))
            settings = load_settings(
                host="127.0.0.1",
                port=port,
                public_url=url,
                data_dir=tmp_path,
                openai_api_key=KEY,
                realtime_url=model,
                twilio_account_sid=ACCOUNT,
                twilio_auth_token=AUTH,
                twilio_number=NUMBER,
                twilio_api_url=twilio.api_url,
                log_level="error",
            )
            await nursery.start(serve, settings)
            sid = await dial(settings, CALLEE, machine_detection=True)
            await twilio.calls[sid].ended.wait()
            asked = [webhook.url for webhook in twilio.webhooks if webhook.url.endswith("/voice/outgoing")]
            assert len(asked) == 1
            assert bool(heard) is (answers == "human")
            nursery.cancel_scope.cancel()
