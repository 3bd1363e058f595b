"""``make setup`` installs exactly what is locked, on any day: it resolves nothing, whatever is published."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from itertools import product
from pathlib import Path

import attrs
import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
ENVIRONMENTS = [
    {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": platform,
        "platform_system": system,
        "platform_machine": machine,
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_version": "",
    }
    for python, (platform, system, machine) in product(
        ("3.11", "3.12", "3.13", "3.14"),
        (
            ("linux", "Linux", "x86_64"),
            ("linux", "Linux", "aarch64"),
            ("darwin", "Darwin", "x86_64"),
            ("darwin", "Darwin", "arm64"),
        ),
    )
]
REQUIRES_ELSEWHERE: dict[str, list[str]] = {"pyyaml-ft": []}
"""What the locked distributions require that are only installed with other Pythons than some test runs have."""
NEWER = "99999.0"


def locked() -> list[tuple[Requirement, list[str]]]:
    """Every requirement of the lock, and its hashes."""
    text = re.sub(r"(?m)^\s*#.*$", "", (ROOT / "requirements.lock").read_text("utf-8"))
    entries = [" ".join(line.split()) for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [
        (Requirement(entry.partition(" --hash=")[0]), re.findall(r"--hash=(\S+)", entry)) for entry in entries
    ]


LOCKED = locked()


def version_of(requirement: Requirement) -> str:
    [specifier] = requirement.specifier
    return specifier.version


def requires(name: NormalizedName) -> list[Requirement]:
    """What a locked distribution requires, by its own metadata."""
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        lines = REQUIRES_ELSEWHERE[name]
    return [Requirement(line) for line in lines]


def needed(environment: dict[str, str]) -> dict[NormalizedName, list[Requirement]]:
    """All that the project, with every extra, and its build need there, and who asked for which version."""
    project = PROJECT["project"]
    roots = [
        *project["dependencies"],
        *(line for lines in project["optional-dependencies"].values() for line in lines),
        *PROJECT["build-system"]["requires"],
    ]
    found: dict[NormalizedName, list[Requirement]] = {}
    seen: set[tuple[NormalizedName, str]] = set()
    waiting = [Requirement(line) for line in roots]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        found.setdefault(name, []).append(requirement)
        for extra in {"", *requirement.extras} - {extra for seen_name, extra in seen if seen_name == name}:
            seen.add((name, extra))
            waiting += [
                inner
                for inner in requires(name)
                if inner.marker is None or inner.marker.evaluate({**environment, "extra": extra})
            ]
    return found


def test_everything_locked_is_one_version_with_hashes() -> None:
    for requirement, hashes in LOCKED:
        [specifier] = requirement.specifier
        assert specifier.operator == "=="
        assert hashes, f"{requirement} has no hash"
        assert not requirement.url


def test_the_lock_names_no_index() -> None:
    assert "://" not in (ROOT / "requirements.lock").read_text("utf-8")


@pytest.mark.parametrize(
    "environment",
    ENVIRONMENTS,
    ids=lambda environment: "-".join(
        environment[key] for key in ("python_version", "sys_platform", "platform_machine")
    ),
)
def test_the_lock_is_closed(environment: dict[str, str]) -> None:
    """What its own distributions require there is in it, in a version that suits all who ask."""
    versions = {
        canonicalize_name(requirement.name): version_of(requirement)
        for requirement, _ in LOCKED
        if requirement.marker is None or requirement.marker.evaluate(environment)
    }
    for name, asked in needed(environment).items():
        assert name in versions, f"the lock lacks {name} there"
        for requirement in asked:
            assert requirement.specifier.contains(versions[name], prereleases=True), f"{requirement} is asked for"


@attrs.frozen
class Index:
    """A package index in a folder: each locked distribution, and a newer release of it."""

    folder: Path

    def publish(self, name: NormalizedName, version: str, metadata_text: str, files: dict[str, bytes]) -> str:
        """Add a wheel; return its hash as a lock states it."""
        stem = f"{name.replace('-', '_')}-{version}"
        text = re.sub(r"(?m)^Version: .*$", f"Version: {version}", metadata_text, count=1)
        info = f"{stem}.dist-info"
        files = {
            **files,
            f"{info}/METADATA": text.encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(f"{path},sha256={_urlsafe(content)},{len(content)}\n" for path, content in files.items())
        files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        wheel = place / f"{stem}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, content in files.items():
                archive.writestr(path, content)
        links = "".join(f'<a href="{path.name}">{path.name}</a>\n' for path in sorted(place.glob("*.whl")))
        (place / "index.html").write_text(f"<!DOCTYPE html>\n<html><body>\n{links}</body></html>\n")
        return f"sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"


def _urlsafe(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def metadata_of(requirement: Requirement) -> str:
    """The real metadata, where the distribution is installed here; else what the table above says of it."""
    try:
        text = metadata.distribution(requirement.name).read_text("METADATA")
        assert text
    except metadata.PackageNotFoundError:
        asked = REQUIRES_ELSEWHERE.get(canonicalize_name(requirement.name), [])
        lines = [f"Name: {requirement.name}", "Version: 0", *(f"Requires-Dist: {line}" for line in asked)]
        text = "\n".join(["Metadata-Version: 2.1", *lines, ""])
    return text


def build_files(name: NormalizedName) -> dict[str, bytes]:
    """The files of a distribution that builds the project; none of any other, they only need to be installed."""
    if name not in BUILDERS:
        return {}
    distribution = metadata.distribution(name)
    files = distribution.files or []
    content = {
        str(path): Path(str(distribution.locate_file(path))).read_bytes()
        for path in files
        if path.suffix == ".py" and ".." not in path.parts
    }
    assert content
    return content


def builders() -> set[NormalizedName]:
    names: set[NormalizedName] = set()
    waiting = [canonicalize_name("hatchling"), canonicalize_name("editables")]
    while waiting:
        name = waiting.pop()
        names.add(name)
        waiting += [
            inner
            for requirement in requires(name)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if (inner := canonicalize_name(requirement.name)) not in names
        ]
    return names


BUILDERS = builders()


def pythons() -> list[str]:
    """The Python that runs the tests, and each other of the supported ones that this machine has."""
    found = {sys.version_info[:2]: sys.executable}
    for minor in range(11, 15):
        candidate = shutil.which(f"python3.{minor}")
        if candidate and (3, minor) not in found:
            asked = subprocess.run([candidate, "-c", "import venv, ensurepip"], capture_output=True, check=False)
            if asked.returncode == 0:
                found[3, minor] = candidate
    return list(found.values())


@pytest.mark.sockets
@pytest.mark.parametrize("python", pythons(), ids=lambda path: Path(path).name)
def test_setup_takes_what_is_locked_though_everything_has_a_newer_release(tmp_path: Path, python: str) -> None:
    """The set-up's own commands, against an index with a higher version of each: the locked ones are installed.

    In a folder whose path has a space, with the pip that this Python brings.
    """
    index = Index(tmp_path / "index")
    lock = []
    for requirement, _ in LOCKED:
        name, text = canonicalize_name(requirement.name), metadata_of(requirement)
        files = build_files(name)
        digest = index.publish(name, version_of(requirement), text, files)
        index.publish(name, NEWER, text, {})
        lock.append(f"{requirement} --hash={digest}\n")
    checkout = tmp_path / "a checkout"
    (checkout / "agent").mkdir(parents=True)
    for path in ("Makefile", "pyproject.toml", "README.md", "agent/__init__.py"):
        shutil.copy(ROOT / path, checkout / path)
    (checkout / "requirements.lock").write_text("".join(lock))
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON", "COV_", "MAKE"))
    }
    settings = {
        "HOME": str(tmp_path / "home"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": index.folder.as_uri(),
        "PIP_NO_CACHE_DIR": "1",
    }

    done = subprocess.run(
        ["make", "setup", f"PYTHON={python}"],
        cwd=checkout,
        env={**clean, **settings},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert installed(checkout / ".venv/bin/python") == {
        canonicalize_name(requirement.name): version_of(requirement)
        for requirement, _ in LOCKED
        if requirement.marker is None or requirement.marker.evaluate(markers_of(python))
    }


def markers_of(python: str) -> dict[str, str]:
    code = "import sys, platform; print('%d.%d' % sys.version_info[:2], platform.python_version())"
    out = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    return {"python_version": out[0], "python_full_version": out[1]}


def installed(python: Path) -> dict[str, str]:
    """What is installed there, pip and the project itself left out."""
    code = (
        "from importlib.metadata import distributions as d; [print(x.metadata['Name'], x.version) for x in d()]"
    )
    out = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout
    found = {canonicalize_name(name): version for name, version in (line.split() for line in out.splitlines())}
    return {name: version for name, version in found.items() if name not in {"pip", "setuptools", "call-agent"}}
