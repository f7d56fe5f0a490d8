"""What holds of the package as a whole: who imports whom, who may look at a clock, and what the face shows."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

import mangacache

PACKAGE = Path(mangacache.__file__).parent
MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}

GROUND = ("model", "settings", "clock", "tasks", "telemetry", "breaker", "collector")
FLOORS = (
    ("cli",),
    ("worker", "demo"),
    ("replay", "simulation", "diagnosis"),
    ("__init__",),
    ("service",),
    ("sessions",),
    ("context", "ephemeral"),
    ("store",),
    ("redis",),
    GROUND,
    ("errors",),
)
# Beside the floors: the embedded servers and the doubles know nothing of what runs on them, and the workers' client
# nothing of what the workers stand on: it has the library's words alone.
ASIDE = ("local", "testing", "client")
# What DAX does is written down once: its double and its emulator are two ways to talk to the same caches and nodes.
MAY_USE_ASIDE = {"local": ("cli", "demo"), "testing": ("local", "simulation"), "client": ("cli", "replay")}
# The simulator lies with the doubles, and runs the whole service.
ROOMS_INSIDE = {"testing/simulation/": "simulation"}
# What the double of Redis shares with the real thing: the seam and the pool of connections, and the scripts' texts.
# The DAX emulator asks DynamoDB by the store's own HTTP: through the AWS client it would spend its time on that alone.
# Fault points stand at the doors to both, and fail as these do.
ASIDE_STANDS_ON = {"local": ("store",), "testing": ("redis", "context", "ephemeral", "store"), "client": ()}

# Where a clock, a generator or a task is taken elsewhere than from clock.py and tasks.py, and why it may be.
ALLOWED = {
    "clock.py": {
        "time.time",
        "time.monotonic",
        "time.thread_time",
        "random.Random",
        "asyncio.sleep",
        "asyncio.timeout",
    },
    "tasks.py": {".create_task"},
    # Real servers are started and ended here; no simulation runs them.
    "local/process.py": {"time.monotonic", "asyncio.sleep", "asyncio.timeout"},
    # A process of its own, which imports nothing of the package so that it starts at once.
    "local/watchdog.py": {"time.monotonic"},
    # A replay measures: recorded times are followed, and latencies taken, in real time.
    "replay/__init__.py": {"time.time"},
    "replay/driving.py": {"time.perf_counter", "asyncio.sleep"},
    "replay/performing.py": {"time.perf_counter"},
    # The loop of a simulation makes what others ask for; its generators are seeded, one for each name.
    "testing/simulation/loop.py": {".create_task", ".call_at"},
    "testing/simulation/world.py": {"random.Random"},
    # How fast a sweep of seeds runs is a matter of real time.
    "testing/simulation/__main__.py": {"time.perf_counter"},
    "testing/simulation/sweeps.py": {"time.process_time"},
    # Each run of the command gets names of its own.
    "replay/command.py": {"secrets.token_hex"},
    # Credentials: what a simulation could foresee, others could.
    "worker/auth/apikeys.py": {"secrets.token_urlsafe"},
    "worker/auth/tokens.py": {"secrets.token_bytes", "secrets.token_hex"},
}
CLOCKS_AND_TASKS = {
    "asyncio": {"create_task", "ensure_future", "sleep", "TaskGroup", "timeout", "timeout_at", "wait_for"},
    "anyio": {"create_task_group", "sleep", "fail_after", "move_on_after"},
    "datetime.datetime": {"now", "utcnow", "today"},
    "datetime.date": {"today"},
    "os": {"urandom"},
    "uuid": {"uuid1", "uuid4"},
    "random": None,  # each of its names
    "secrets": None,
    "time": None,
}
OF_ANY_OBJECT = {"create_task", "call_later", "call_at"}

MAY_PRINT = {
    "cli.py": "a command line prints",
    "demo.py": "a command line prints",
    "replay/command.py": "a command line prints",
    "testing/simulation/__main__.py": "a command line prints",
    "replay/workers.py": "a worker process of a replay has only its standard error to be heard by",
}

FACE = [
    "Appended",
    "Closed",
    "Conflict",
    "Consistency",
    "Context",
    "Corrupt",
    "Deleted",
    "History",
    "Invalid",
    "MangaCache",
    "MangaCacheError",
    "Meta",
    "NewTurn",
    "NotFound",
    "Rejected",
    "SessionInfo",
    "SessionPage",
    "Settings",
    "Summary",
    "Transient",
    "Turn",
    "Updated",
    "Version",
    "VersionGone",
]


def _tree(name):
    return ast.parse(MODULES[name].read_text(encoding="utf-8"), name)


def _room(name):
    for folder, room in ROOMS_INSIDE.items():
        if name.startswith(folder):
            return room
    return name.removesuffix(".py").split("/")[0]


def _running(node):
    """Iterate over what runs: everything but the bodies of `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            for other in child.orelse:
                yield other
                yield from _running(other)
        else:
            yield child
            yield from _running(child)


def _module_of(dotted):
    """Return the file of one of the package's modules, or None."""
    path = dotted.removeprefix("mangacache").strip(".").replace(".", "/")
    names = (f"{path}.py", f"{path}/__init__.py".removeprefix("/"))
    return next((name for name in names if name in MODULES), None)


def _imported(tree):
    """Return the package's modules that a module imports when it runs, anywhere in it."""
    found = set()
    for node in _running(tree):
        if isinstance(node, ast.Import):
            found |= {_module_of(alias.name) for alias in node.names if alias.name.split(".")[0] == "mangacache"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mangacache":
            found |= {_module_of(f"{node.module}.{alias.name}") or _module_of(node.module) for alias in node.names}
    return found


def _may_import(importer, imported):
    if importer == imported:
        return True
    if imported in ASIDE:
        return importer in MAY_USE_ASIDE[imported]
    if importer in ASIDE:
        return imported in (*GROUND, "errors", *ASIDE_STANDS_ON[importer])
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    return floor[importer] < floor[imported]


def _names(tree):
    """Return what each imported name stands for, `{"_random": "random", "perf_counter": "time.perf_counter"}`."""
    names = {}
    for node in _running(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name.split(".")[0]: alias.asname and alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return {name: origin or name for name, origin in names.items()}


def _is_watched(dotted):
    holder, _, name = dotted.rpartition(".")
    return holder in CLOCKS_AND_TASKS and (CLOCKS_AND_TASKS[holder] is None or name in CLOCKS_AND_TASKS[holder])


def _clocks_and_tasks(tree):
    """Return the clocks, generators and task makers that a module names."""
    names, found = _names(tree), set()
    for node in _running(tree):
        if isinstance(node, ast.Name):
            dotted = names.get(node.id, "")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
            dotted = f"{names[node.value.id]}.{node.attr}"
        else:
            dotted = ""
        if _is_watched(dotted):
            found.add(dotted)
        elif isinstance(node, ast.Attribute) and node.attr in OF_ANY_OBJECT:
            found.add(f".{node.attr}")
    return found


def test_every_module_is_in_a_room_that_the_design_knows():
    known = {room for rooms in FLOORS for room in rooms} | set(ASIDE)
    assert {_room(name) for name in MODULES} <= known


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_downwards_only(name):
    upwards = [other for other in _imported(_tree(name)) if not _may_import(_room(name), _room(other))]
    assert upwards == []


@pytest.mark.parametrize("name", MODULES)
def test_imports_inside_the_package_are_absolute(name):
    relative = [ast.unparse(n) for n in ast.walk(_tree(name)) if isinstance(n, ast.ImportFrom) and n.level]
    assert relative == []


def test_no_module_imports_itself_by_way_of_others():
    imports = {name: _imported(_tree(name)) - {name} for name in MODULES}
    while leaves := {name for name, others in imports.items() if not others}:
        imports = {name: others - leaves for name, others in imports.items() if name not in leaves}
    assert imports == {}, "what is left stands on a circle, or above one"


@pytest.mark.parametrize("name", MODULES)
def test_time_randomness_and_tasks_come_only_from_the_clock_and_the_task_owner(name):
    """Both ways: nothing is taken elsewhere, and no exception is left standing that nobody uses any more."""
    assert _clocks_and_tasks(_tree(name)) == ALLOWED.get(name, set())


def test_the_exceptions_name_modules_that_exist():
    assert ALLOWED.keys() | MAY_PRINT.keys() <= MODULES.keys()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import time\nt = time.time()", {"time.time"}),
        ("from time import monotonic as now\nt = now()", {"time.monotonic"}),
        ("import random as r\nx = r.choice('ab')", {"random.choice"}),
        ("import asyncio\nasyncio.get_running_loop().create_task(f())", {".create_task"}),
        ("import asyncio\ndef f():\n    return asyncio.sleep", {"asyncio.sleep"}),
        ("from datetime import datetime\nt = datetime.now()", {"datetime.datetime.now"}),
        ("import datetime\nt = datetime.datetime.fromtimestamp(0)", set()),
        ("def f(random, clock):\n    return random.random() + clock.time_s()", set()),
        ("if TYPE_CHECKING:\n    from random import Random\ndef f(r: 'Random'): ...", set()),
    ],
)
def test_the_search_for_clocks_finds_what_it_should(source, found):
    assert _clocks_and_tasks(ast.parse(source)) == found


@pytest.mark.parametrize("name", sorted(MODULES.keys() - MAY_PRINT.keys()))
def test_the_library_does_not_print(name):
    calls = [node.func for node in ast.walk(_tree(name)) if isinstance(node, ast.Call)]
    assert "print" not in {call.id for call in calls if isinstance(call, ast.Name)}


def test_the_face_is_exactly_this():
    assert mangacache.__all__ == FACE
    assert sorted(FACE) == FACE


@pytest.mark.parametrize("name", FACE)
def test_each_public_name_exists_and_is_documented(name):
    assert (vars(getattr(mangacache, name)).get("__doc__") or "").strip()


def test_errors_are_one_tree_that_also_answers_to_the_standard_ones():
    errors = import_module("mangacache.errors")
    family = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert all(issubclass(error, mangacache.MangaCacheError) for error in family)
    assert {error.__name__ for error in family} <= set(FACE)
    assert issubclass(mangacache.Invalid, ValueError)
    assert issubclass(mangacache.NotFound, LookupError)
    assert issubclass(mangacache.VersionGone, mangacache.Conflict)


def test_what_a_room_offers_is_there():
    rooms = [name.removesuffix("/__init__.py").replace("/", ".") for name in MODULES if name.endswith("/__init__.py")]
    for room in rooms:
        module = import_module(f"mangacache.{room}")
        assert all(hasattr(module, name) for name in getattr(module, "__all__", ())), room


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()
