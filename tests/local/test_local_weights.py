"""What answers calls is what it should be: weights are hashed before they are read, their origin is told."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.core.errors import WeightsError
from agent.local import server
from agent.local.speech import transcribing, weights
from agent.local.speech.engines import LoadedEngines
from agent.local.speech.weights import HIBARI, SILERO_VAD, WHISPER, Weights

ALL = [SILERO_VAD, WHISPER, HIBARI]
SPEECH = Path(weights.__file__).parent
HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
"""The SHA-256 of "hello"."""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a package with weights in it, that can be imported."""
    package = tmp_path / "some_weights"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield package / "data"
    sys.modules.pop("some_weights", None)


def some(**sha256: str) -> Weights:
    return Weights(
        "some_weights", "some-weights", "data", {f"{name}.bin": value for name, value in sha256.items()}
    )


@pytest.mark.speech
@pytest.mark.parametrize("network", ALL, ids=lambda network: network.package)
def test_the_installed_weights_are_those_named(network: Weights) -> None:
    if importlib.util.find_spec(network.module) is None:
        pytest.skip("needs the [local] extra")
    assert network.checked().is_dir()


def test_the_detectors_weights_are_ours_to_ship() -> None:
    """They need no package, and their licence is with them."""
    assert SILERO_VAD.checked() == SPEECH / "silero"
    assert "Silero Team" in (SPEECH / "silero" / "LICENSE").read_text("utf-8")


def test_files_that_are_right_are_found(module: Path) -> None:
    (module / "a.bin").write_text("hello")
    assert some(a=HELLO).checked() == module


def test_a_changed_file_is_refused_in_one_sentence(module: Path) -> None:
    (module / "a.bin").write_text("hello")
    (module / "b.bin").write_text("hellO")
    with pytest.raises(WeightsError) as caught:
        some(a=HELLO, b=HELLO).checked()
    text = str(caught.value)
    assert text.startswith("b.bin of some-weights is not the file it should be (SHA-256 ")
    assert text.endswith(f"not {HELLO}): install what requirements.lock names")
    assert "\n" not in text


def test_a_missing_file_is_refused(module: Path) -> None:
    with pytest.raises(WeightsError, match="the file is missing"):
        some(a=HELLO).checked()


def test_a_missing_package_is_a_missing_package() -> None:
    with pytest.raises(ModuleNotFoundError, match="some_weights"):
        some(a=HELLO).checked()


async def test_a_model_with_wrong_weights_does_not_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load() -> Any:
        raise WeightsError("model.bin is not the file it should be")

    monkeypatch.setattr(LoadedEngines, "load", load)
    assert await server.run(0) == 1
    assert capsys.readouterr().out == "failed model.bin is not the file it should be\n"


def test_a_recording_is_not_written_down_with_wrong_weights(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    def open_wav(path: Path) -> Any:
        raise WeightsError(f"{path.name} is not the file it should be")

    monkeypatch.setattr(sys, "argv", ["transcribing", str(tmp_path / "model.bin")])
    for name in ("_end_with_stdin", "open_wav"):
        monkeypatch.setattr(transcribing, name, open_wav if name == "open_wav" else lambda: None)
    monkeypatch.setattr("os.nice", lambda _: 0)
    transcribing.main()
    assert b"model.bin is not the file it should be" in capfdbinary.readouterr().out


def test_what_is_checked_is_written_down() -> None:
    """Who makes each, and what would replace it."""
    text = (SPEECH.parents[2] / "docs" / "supply.md").read_text("utf-8")
    assert not [network.package for network in (WHISPER, HIBARI) if f"`{network.package}`" not in text]
