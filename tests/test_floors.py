"""The structure holds by itself: floors, no cycles, the pacer's diet, and tests that do not wait for real time.

A module imports only from its own floor or a lower one. Who adds a module puts it on the lowest floor that has
everything it needs, in the table below.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    0: "units errors",
    1: "settings records telemetry eventlog door.tickets tenancy.tenant tenancy.fields",
    # The pure core: no waiting, no clock, no socket. Times come in as arguments.
    2: """ulaw frames generation playout tx_meter caller_meter barge_in turn_taking transcript asking hearing
          conversation call_clock dtmf input_repair tools twilio_stream ws_shortcuts stages
          model.errors model.events model.requests door.http_head door.signature door.twiml
          tenancy.files cli.showing cli.transcript_view
          pipeline.extraction pipeline.extraction_rules pipeline.analysis_request
          pipeline.call_completed pipeline.inward pipeline.webhook_signature pipeline.wav_format
          pipeline.transcription pipeline.talk_spans""",
    # Shells around one socket, thread, signal, file or tick each.
    3: """ws_connection websocket finishing metronome tx_scheduler carrier_rest record_store spool
          embedded_postgres store pg tool_desk user_tools tenant_book loop_probe shutdown
          model.outbox model.leg model.side door.front_door door.stream_desk pipeline.webhook_delivery
          pipeline.openai_client pipeline.openai_rest pipeline.part_file pipeline.recordings
          pipeline.carrier_media pipeline.wav_reading pipeline.transcribing pipeline.local_transcribing""",
    # The call, and what comes after it.
    4: """call_keeping call_tools call_house call_state call_ingress call_watch call_ending nursery_call
          call_answer postcall pipeline.chores pipeline.facts pipeline.instruments pipeline.payload
          pipeline.steps pipeline.worker""",
    # What a process is made of: the server, the command line, the embedded model, and all that phones the agent.
    5: """server door.web door.webhooks pipeline.process cli __main__ local sim demo bench""",
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names.split()}
WAITS_OR_KNOWS_THE_TIME = {
    "trio", "asyncio", "threading", "socket", "ssl", "selectors", "subprocess", "signal", "time", "httpx",
    "requests", "trio_websocket", "random", "logging",
}  # fmt: skip


def module_name(path: Path) -> str:
    """``agent/sim/link.py`` is ``agent.sim.link``; a package is its ``__init__``."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


PATHS = {module_name(path): path for path in sorted((ROOT / "agent").rglob("*.py"))}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imported(tree: ast.AST) -> Iterator[str]:
    """Every imported module's full name, imports inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            assert node.level == 0, f"a relative import of {module}: imports here are absolute"
            submodules = [f"{module}.{alias.name}" for alias in node.names]
            named = [name for name in submodules if name in PATHS]
            yield from named
            if len(named) < len(submodules):
                yield module


def tops(tree: ast.AST) -> set[str]:
    """The top-level packages that are imported."""
    return {name.partition(".")[0] for name in imported(tree)}


def own_imports(name: str) -> set[str]:
    return {other for other in imported(tree_of(PATHS[name])) if other in PATHS and other != "agent"}


def place_of(name: str) -> str:
    """Where a module stands in the table: under its own name, or else its package's."""
    inner = name.removeprefix("agent.")
    return inner if inner in FLOOR_OF else inner.partition(".")[0]


def floor_of(name: str) -> int:
    """The floor of a module: its own, or that of the package it is in."""
    return FLOOR_OF[place_of(name)]


def is_face(name: str) -> bool:
    """Whether it is a package's ``__init__`` that imports nothing: it stands nowhere."""
    return PATHS[name].name == "__init__.py" and not own_imports(name)


HOUSED = [name for name in PATHS if not is_face(name)]


def test_every_module_has_its_floor() -> None:
    homeless = sorted(name for name in HOUSED if place_of(name) not in FLOOR_OF)
    assert not homeless, f"put {homeless} on the lowest floor that has what they import: FLOORS in {__file__}"
    gone = sorted(set(FLOOR_OF) - {place_of(name) for name in HOUSED})
    assert not gone, f"{gone} are on a floor but do not exist any more: FLOORS in {__file__}"
    assert sum(len(names.split()) for names in FLOORS.values()) == len(FLOOR_OF), "a module is on two floors"


def test_imports_only_go_down() -> None:
    upward = [
        f"{name} (floor {floor_of(name)}) imports {other} (floor {floor_of(other)})"
        for name in HOUSED
        for other in sorted(own_imports(name))
        if not is_face(other) and floor_of(other) > floor_of(name)
    ]
    assert not upward, "\n".join(upward)


def test_nothing_is_imported_in_a_circle() -> None:
    try:
        TopologicalSorter({name: own_imports(name) for name in PATHS}).prepare()
    except CycleError as error:
        pytest.fail("an import cycle: " + " <- ".join(error.args[1]))


def test_the_simulators_serve_no_real_call() -> None:
    users = {name for name in PATHS for other in own_imports(name) if other.startswith("agent.sim")}
    allowed = ("agent.sim", "agent.app.demo", "agent.bench")
    assert not [name for name in users if not name.startswith(allowed)]


def test_the_core_is_pure() -> None:
    """Floor 2 neither waits nor looks at a clock: whatever it decides can be tested as a function."""
    impure = {
        name: found
        for name in HOUSED
        if floor_of(name) == 2
        if (found := tops(tree_of(PATHS[name])) & WAITS_OR_KNOWS_THE_TIME)
    }
    assert not impure


def test_there_is_no_asyncio() -> None:
    assert not [name for name, path in PATHS.items() if "asyncio" in tops(tree_of(path))]


@pytest.mark.parametrize("heart", ["nursery_call", "tx_scheduler", "playout", "postcall"])
def test_st_5_the_heart_modules(heart: str) -> None:
    assert f"agent.{heart}" in PATHS


def test_st_5_the_packages() -> None:
    """All that ST-5 names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[\[<>=!~ ]", requirement, maxsplit=1)[0] for requirement in requirements}

    assert names(project["dependencies"]) >= {
        "trio",
        "trio-websocket",
        "httpx",
        "openai",
        "twilio",
        "psycopg",
        "attrs",
    }
    assert "pytest-trio" in names(project["optional-dependencies"]["dev"])


@pytest.mark.parametrize("name", ["tx_scheduler", "playout", "tx_meter"])
def test_tx_4_the_pacer_imports_no_rest_no_logging_no_traces(name: str) -> None:
    found = tops(tree_of(PATHS[f"agent.{name}"]))
    assert not found & {"logging", "structlog", "traceback", "twilio", "httpx", "requests", "openai", "psycopg"}


def test_tx_4_the_pacers_loop_formats_nothing() -> None:
    """Next frame, send, sleep: no text is made in the loop but the message itself, by its encoder."""
    [pacer] = [
        node
        for node in tree_of(PATHS["agent.tx_scheduler"]).body
        if isinstance(node, ast.ClassDef) and node.name == "TxScheduler"
    ]
    methods = {node.name: node for node in pacer.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    loop = ("run", "_speakable", "_speak", "_pause", "_send_frame", "_write", "_account", "_look_at")
    formatting = [
        f"{name}: {ast.unparse(node)}" for name in loop for node in ast.walk(methods[name]) if is_formatting(node)
    ]
    assert not formatting


def is_formatting(node: ast.AST) -> bool:
    """An f-string, ``"..." % x``, ``str(x)``, ``repr(x)`` or ``.format(...)``."""
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant | ast.JoinedStr)
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        return called in ("str", "repr", "print", "format") or called.endswith(".format")
    return isinstance(node, ast.JoinedStr)


# ST-6: tests wait on the autojump clock


REAL = re.compile(r"pytest\.mark\.(sockets|speech)\b")
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
TESTS = sorted(Path(__file__).parent.rglob("*.py"))


def calls_any(node: ast.AST, names: set[str]) -> bool:
    return any(isinstance(part, ast.Call) and ast.unparse(part.func) in names for part in ast.walk(node))


def mentions(node: ast.AST, names: set[str]) -> bool:
    return any(isinstance(part, ast.Name) and part.id in names for part in ast.walk(node))


def definitions_that(path: Path, names: set[str]) -> dict[str, Definition]:
    """What a file defines that calls one of ``names``, itself or through what else the file defines."""
    definitions = {node.name: node for node in tree_of(path).body if isinstance(node, Definition)}
    found = {name for name, node in definitions.items() if calls_any(node, names)}
    while more := {name for name, node in definitions.items() if name not in found and mentions(node, found)}:
        found |= more
    return {name: definitions[name] for name in found}


def unmarked_tests_that(path: Path, names: set[str]) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The tests among them that are not marked as using the real world."""
    module_marks = [node for node in tree_of(path).body if isinstance(node, ast.Assign)]
    if any("pytestmark" in (text := ast.unparse(node)) and REAL.search(text) for node in module_marks):
        return []
    return [
        node
        for name, node in sorted(definitions_that(path, names).items())
        if name.startswith("test_") and not isinstance(node, ast.ClassDef)
        if not REAL.search(" ".join(ast.unparse(decorator) for decorator in node.decorator_list))
    ]


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_st_6_no_unmarked_test_waits_for_real_time(path: Path) -> None:
    slow = [node.name for node in unmarked_tests_that(path, {"time.sleep", "sleep"})]
    assert not slow, f"{slow} sleep: wait on the autojump clock, or mark them `sockets`"


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_st_6_timing_is_tested_on_the_autojump_clock(path: Path) -> None:
    own_clock = definitions_that(path, {"MockClock", "trio.testing.MockClock"})
    real = [
        node.name
        for node in unmarked_tests_that(path, {"trio.sleep", "trio.sleep_until"})
        if node.name not in own_clock and "autojump_clock" not in {argument.arg for argument in node.args.args}
    ]
    assert not real, f"{real} wait: take `autojump_clock`, or mark them `sockets`"
