"""The structure holds by itself: floors, no cycles, the pacer's diet, and tests that do not wait for real time.

A module imports from its own room or from rooms on lower floors. Who adds a room puts it on the lowest floor that
has everything it needs, in the table below.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    1: "core",
    2: "audio playout store web wire",
    3: "browser carrier model pipeline postcall",
    4: "local sim tx_scheduler",
    5: "call",
    6: "nursery_call",
    7: "app",
}
"""The rooms: folders of ``agent/``, and the owner's four modules. A room imports from lower floors only."""
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms.split()}
PURE = {
    "app": "cli.calls.transcript_view cli.tenants.files cli.terminal_text processes.figures processes.routing",
    "audio": "frames gap_filler generation level_meter pacer_metrics ulaw uplink waiting_tone",
    "call": "bounds call_clock commands conversation answers.answers answers.response_requests answers.responses"
    " answers.truncation memory.ordered memory.replay memory.transcript turns.barge_in turns.dtmf"
    " turns.greeted_turn turns.leaving turns.own_ear turns.small_talk tools.declare"
    " tools.spoken_numbers tools.use_counts",
    "browser": "admission messages webm",
    "carrier": "media_stream signature stream_events twiml",
    "core": "admission audio_format bounds caller_leg errors log_text provider_models state_table steps tenant"
    " tenant_fields units",
    "model": "errors events opening requests server_shapes",
    "pipeline": "analysis.extraction analysis.extraction_rules analysis.request recording.wav_format"
    " transcription.talk_spans transcription.transcription"
    " analysis.spoken_names webhook.address_policy webhook.call_completed webhook.signature",
    "playout": "",
    "web": "exchange head lobby peer",
    "wire": "frames text_frames",
}
"""The pure core: no waiting, no clock, no socket; times come in as arguments. Rooms mix both."""
ENTRIES = 12
"""In one folder at the most, unless its reason stands here."""
CROWDED = {
    "agent": "the plan of the house: its rooms and the owner's four modules",
    "tests": "one folder for each room of agent/, and what holds for all of them",
    "tests/support": "what tests of several rooms share",
    "tests/whole_calls": "one subject each, all of them about one call from its answer to its record",
    "tests/call": "one file for each part of a call, as in agent/call",
    "agent/browser/page": "what a browser loads, one idea in each file",
    "agent/core": "what every room shares, one idea in each file",
    "agent/call": "the tasks of one call, and its conversation; what that is made of is in folders",
}
HOMONYMS = {
    "Generation": "an answer of the model, and a generation of the server's processes",
    "Link": "a socket below a WebSocket, and one end between two processes",
    "Ping": "of WebSockets, and of the browser's own protocol",
    "RefusedError": "a request that the door refuses, and a call that the browser's does",
}
"""Names that two classes have, with or without an underscore; each is a word of two fields."""
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


def room_of(name: str) -> str:
    """The room a module is in: the first part of its name inside ``agent``."""
    return name.removeprefix("agent.").partition(".")[0]


HOUSED = [name for name in PATHS if name not in {"agent", "agent.__main__"}]
"""All but the public face and ``python -m agent``: they are above the house."""


def test_every_room_has_its_floor() -> None:
    rooms = {room_of(name) for name in HOUSED}
    assert rooms == set(FLOOR_OF), f"FLOORS in {__file__} has one entry per room"
    assert len(FLOORS) <= 10
    assert sum(len(names.split()) for names in FLOORS.values()) == len(FLOOR_OF), "a room is on two floors"


def test_imports_only_go_down() -> None:
    """From one room into another on a lower floor, or within a room."""
    upward = [
        f"{name} (floor {FLOOR_OF[room_of(name)]}) imports {other} (floor {FLOOR_OF[room_of(other)]})"
        for name in HOUSED
        for other in sorted(own_imports(name))
        if room_of(other) != room_of(name) and FLOOR_OF[room_of(other)] >= FLOOR_OF[room_of(name)]
    ]
    assert not upward, "\n".join(upward)


def test_nothing_is_imported_in_a_circle() -> None:
    try:
        TopologicalSorter({name: own_imports(name) for name in PATHS}).prepare()
    except CycleError as error:
        pytest.fail("an import cycle: " + " <- ".join(error.args[1]))


def test_the_hall_is_small() -> None:
    """In ``agent/`` itself are its public face, the way in, the owner's four modules and the rooms."""
    hall = sorted(path.name for path in (ROOT / "agent").glob("*.py"))
    assert len(hall) <= 8, hall


@pytest.mark.parametrize("top", ["agent", "tests", "bench"])
def test_no_folder_is_crowded(top: str) -> None:
    """About ten entries in any folder; where there are more, the reason is said above."""
    folders = [
        ROOT / top,
        *(path for path in (ROOT / top).rglob("*") if path.is_dir() and path.name != "__pycache__"),
    ]
    crowded = {
        path: count
        for folder in folders
        if (count := sum(entry.name not in {"__pycache__", "__init__.py"} for entry in folder.iterdir()))
        > ENTRIES
        if (path := folder.relative_to(ROOT).as_posix()) not in CROWDED
    }
    assert not crowded


def test_one_word_is_one_thing() -> None:
    """Whoever reads a class's name knows which one is meant."""
    classes = [
        (node.name.lstrip("_"), name)
        for name, path in PATHS.items()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef)
    ]
    seen = Counter(name for name, _ in classes)
    assert not [(name, where) for name, where in classes if seen[name] > 1 and name not in HOMONYMS]


def test_postgres_knows_of_no_call() -> None:
    """Psycopg on Trio, and the embedded server, could be packages of their own."""
    allowed = {
        "agent.store.pg": ("agent.store.pg",),
        "agent.store.embedded_postgres": (
            "agent.store.embedded_postgres",
            "agent.core.errors",
            "agent.core.durable",
        ),
    }
    for room, inside in allowed.items():
        found = {other for name in PATHS if name.startswith(room) for other in own_imports(name)}
        assert not {other for other in found if not other.startswith(inside)}


def test_agent_imports_nothing_of_the_benchmark_and_the_tests() -> None:
    assert not [name for name, path in PATHS.items() if tops(tree_of(path)) & {"bench", "tests"}]


def test_the_simulators_serve_no_real_call() -> None:
    users = {name for name in PATHS for other in own_imports(name) if other.startswith("agent.sim")}
    allowed = ("agent.sim", "agent.app.demo")
    assert not [name for name in users if not name.startswith(allowed)]


def test_the_core_is_pure() -> None:
    """It neither waits nor looks at a clock: whatever it decides can be tested as a function."""
    names = [
        f"agent.{room}.{module}".removesuffix(".")
        for room, modules in PURE.items()
        for module in modules.split() or [""]
    ]
    assert not [name for name in names if name not in PATHS]
    impure = {name: found for name in names if (found := tops(tree_of(PATHS[name])) & WAITS_OR_KNOWS_THE_TIME)}
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


@pytest.mark.parametrize("name", ["tx_scheduler", "playout", "audio.pacer_metrics"])
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


@pytest.mark.parametrize("top", ["bench", "tests"])
def test_no_test_file_is_imported_by_another(top: str) -> None:
    """What several tests share is in tests/support (decision H4)."""
    importers = {
        path.name: names
        for path in (ROOT / top).rglob("*.py")
        if (names := [name for name in imported(tree_of(path)) if name.startswith("test_")])
    }
    assert not importers


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
    # tests/support/sweeps.py runs a call on an autojump clock of its own.
    own_clock = definitions_that(path, {"MockClock", "trio.testing.MockClock", "run_virtually"})
    real = [
        node.name
        for node in unmarked_tests_that(path, {"trio.sleep", "trio.sleep_until"})
        if node.name not in own_clock and "autojump_clock" not in {argument.arg for argument in node.args.args}
    ]
    assert not real, f"{real} wait: take `autojump_clock`, or mark them `sockets`"


def test_nothing_is_raised_in_an_except_star_clause() -> None:
    """Python 3.11.2, Debian's, wraps it in a group: what was one error is then none that anybody expects."""
    raises = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (ROOT / "agent").rglob("*.py")
        for clause in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(clause, ast.TryStar)
        for handler in clause.handlers
        for node in ast.walk(handler)
        if isinstance(node, ast.Raise) or (isinstance(node, ast.Attribute) and node.attr == "exit")
    ]
    assert not raises, raises
