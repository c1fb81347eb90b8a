"""The direction of imports, read from the source: no circle between modules, nothing against the design."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS: Mapping[str, frozenset[str]] = {
    "core": frozenset(),
    "profiles": frozenset({"core"}),
    "exporters": frozenset({"core"}),
    "compression": frozenset({"core", "exporters"}),
    "targets": frozenset({"core"}),
    "harness": frozenset({"core", "profiles", "exporters", "targets"}),
    "cli": frozenset({"core", "profiles", "exporters", "compression", "targets", "harness", "examples"}),
    "examples": frozenset(),
}
"""Room -> the rooms that it may import. Nothing imports `cli`."""
INNER_ROOMS: Mapping[str, frozenset[str]] = {
    "harness/study": frozenset({"compression"}),
    "examples/text_energy": frozenset({"core", "profiles", "targets", "harness"}),
}
"""Rooms inside of others -> what they may import beyond those."""
TARGET_ROOMS: Mapping[str, frozenset[str]] = {
    "readiness": frozenset(),
    "options": frozenset(),
    "profiling": frozenset(),
    "snippets": frozenset(),
    "contract": frozenset({"options", "readiness"}),
    "table": frozenset({"contract"}),
    "graphs": frozenset({"contract", "readiness"}),
    "quantization": frozenset({"contract", "readiness", "graphs"}),
    "building": frozenset({"contract", "options", "readiness", "table", "graphs", "quantization"}),
    "language": frozenset({"options", "readiness", "graphs", "quantization"}),
}
"""What the runtimes of `targets` share -> what of it each may import. The other folders are runtimes: the tables name
them, and nothing else knows one."""
TARGET_TABLES = frozenset({"table", "language/table"})
HARNESS_ROOMS: Mapping[str, frozenset[str]] = {
    "kinds": frozenset(),
    "formatting": frozenset(),
    "meters": frozenset({"kinds"}),
    "run": frozenset({"kinds", "meters"}),
    "results": frozenset({"kinds", "formatting", "run", "meters"}),
    "verdict": frozenset({"formatting", "results"}),
    "report": frozenset({"formatting", "results", "verdict"}),
}
"""Rooms of `harness` in the order of the data: metered, measured, typed, judged, shown. None knows what calls it."""


def read_modules(root: Path) -> dict[str, Path]:
    """Returns module name -> file of all that is installed."""
    modules = {}
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            modules[".".join(("modelwright", *parts))] = path
    return modules


NAMED = re.compile(r"modelwright(\.\w+)+(:\w+)?\.?")
"""How text names a module, as `import_module` or a child's entry point take it."""


def find_imports(name: str, path: Path, modules: Mapping[str, Path]) -> Iterator[tuple[str, int]]:
    """Yields (module of ours, line) for each import of a file.

    Imports under `TYPE_CHECKING` and inside functions count too: they say who knows whom all the same.
    """
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])
            for alias in node.names:
                found = next((n for n in (f"{base}.{alias.name}", base) if n in modules), None)
                if found is not None:
                    yield found, node.lineno
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):
            named = (found for argument in node.args for found, _ in find_named(argument, modules))
            yield from ((found, node.lineno) for found in named)


def find_named(tree: ast.AST, modules: Mapping[str, Path]) -> Iterator[tuple[str, int]]:
    """Yields (module of ours, line) for each text or attribute that names one.

    Of `f"modelwright.cli.{name}"` it is what is known.

    The table of targets and the entry points of children name modules so. That decides the direction, as an import
    does; a circle it is not: nothing waits for the module to be loaded.
    """
    for node in ast.walk(tree):
        text = ast.unparse(node) if isinstance(node, ast.Attribute) else getattr(node, "value", None)
        if isinstance(text, str) and NAMED.fullmatch(text):
            parts = text.partition(":")[0].rstrip(".").split(".")
            prefixes = (".".join(parts[:count]) for count in range(len(parts), 1, -1))
            found = next((prefix for prefix in prefixes if prefix in modules), None)
            if found is not None:
                yield found, node.lineno


def find_circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Returns the groups of modules that reach each other, sorted (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    circles: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        path.append(name)
        for after in sorted(graph.get(name, ())):
            if after not in index:
                visit(after)
                low[name] = min(low[name], low[after])
            elif after in path:
                low[name] = min(low[name], index[after])
        if low[name] == index[name]:
            circle = path[path.index(name) :]
            del path[path.index(name) :]
            if len(circle) > 1:
                circles.append(sorted(circle))

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return circles


def list_packages(name: str) -> list[str]:
    """Returns the packages that a module lies in, which are loaded before it."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def find_faults(root: Path) -> list[str]:
    """Returns a sentence for each import against the direction, and one for a circle."""
    modules = read_modules(root)
    faults: list[str] = []
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        imports = list(find_imports(name, path, modules))
        loaded = {package for imported, _ in imports for package in list_packages(imported) if package in modules}
        graph[name] = loaded - {name, *list_packages(name)} | {imported for imported, _ in imports} - {name}
        for imported, line in [*imports, *find_named(ast.parse(path.read_text(encoding="utf-8")), modules)]:
            inside = ["__init__"] if modules[imported].name == "__init__.py" else []
            reason = refuse(name.split(".")[1:], imported.split(".")[1:] + inside)
            if reason:
                faults.append(f"{path.relative_to(root)}:{line} imports {imported}: {reason}")
    return [*dict.fromkeys(faults), *(f"a circle: {', '.join(circle)}" for circle in find_circles(graph))]


def refuse(importer: list[str], imported: list[str]) -> str | None:
    """Returns why one module may not import another; None where it may."""
    if not importer or not imported:
        return None
    room, other = importer[0], imported[0]
    if room != other:
        if other == "targets" and len(imported) > 2 and imported[1] not in TARGET_ROOMS:
            return f"{room} may not know targets/{imported[1]}: it is a runtime"
        allowed = ROOMS[room] | INNER_ROOMS.get("/".join(importer[:2]), frozenset())
        return None if other in allowed else f"{room} may not know {other}"
    if len(importer) < 2:
        return None
    inner, other_inner = importer[1], imported[1] if len(imported) > 1 else "__init__"
    if inner == other_inner:
        return None
    if room == "targets" and other_inner not in {*TARGET_ROOMS, "__init__"}:
        knows = "/".join(importer[1:]) in TARGET_TABLES
        return None if knows else f"targets/{inner} may not know targets/{other_inner}: it is a runtime"
    order = {"targets": TARGET_ROOMS, "harness": HARNESS_ROOMS}.get(room, {})
    if inner in order and other_inner not in order[inner]:
        return f"{room}/{inner} may not know {room}/{other_inner}"
    return None


def test_no_circle_and_no_import_against_the_direction() -> None:
    assert not find_faults(ROOT), "\n".join(["", *find_faults(ROOT)])


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"core/a.py": "from modelwright.targets import b", "targets/b.py": ""}, "core may not know targets"),
        ({"harness/x.py": "from modelwright.compression import y", "compression/y.py": ""}, "may not know compression"),
        (
            {"harness/run/x.py": "from modelwright.compression import y", "compression/y.py": ""},
            "harness may not know compression",
        ),
        (
            {
                "core/a.py": "import modelwright.core.b",
                "core/b.py": "def f():\n    from modelwright.core.a import x",
            },
            "a circle",
        ),
        (
            {
                "core/a.py": "import modelwright.core.b",
                "core/b.py": "import importlib\nimportlib.import_module('modelwright.core.a')",
            },
            "a circle",
        ),
        (
            {
                "core/a.py": "import modelwright.core.b",
                "core/b.py": "__import__('modelwright.core.a')",
            },
            "a circle",
        ),
        ({"core/a.py": "f('modelwright.targets.b:run')", "targets/b.py": ""}, "core may not know targets"),
        (
            {"core/a.py": "f(f'modelwright.cli.{x}')", "cli/__init__.py": ""},
            "core may not know cli",
        ),
        ({"core/a.py": "from modelwright.core import b", "core/b.py": "from modelwright.core.a import x"}, "a circle"),
        ({"core/p/a.py": "from . import b", "core/p/b.py": "from .a import x"}, "a circle"),
        (
            {
                "core/a.py": "if TYPE_CHECKING:\n    from modelwright.core.b import x",
                "core/b.py": "from modelwright.core.a import x",
            },
            "a circle",
        ),
        (
            {
                "core/p/__init__.py": "import modelwright.core.b",
                "core/p/a.py": "",
                "core/b.py": "import modelwright.core.p.a",
            },
            "a circle",
        ),
        ({"harness/x.py": "from modelwright.cli.y import z", "cli/y.py": ""}, "harness may not know cli"),
        ({"core/a.py": "import modelwright\nmodelwright.cli.y.z()", "cli/y.py": ""}, "core may not know cli"),
        (
            {"harness/results/a.py": "from modelwright.harness.report.b import x", "harness/report/b.py": ""},
            "harness/results may not know harness/report",
        ),
        (
            {"harness/results/a.py": "from modelwright.harness import report", "harness/report/__init__.py": ""},
            "harness/results may not know harness/report",
        ),
        (
            {"harness/results/a.py": "from ..report import x", "harness/report/__init__.py": ""},
            "harness/results may not know harness/report",
        ),
        (
            {"targets/graphs/a.py": "from modelwright.targets.ort.session import x", "targets/ort/session.py": ""},
            "targets/graphs may not know targets/ort",
        ),
        (
            {"targets/ort/a.py": "from modelwright.targets.tflite.b import x", "targets/tflite/b.py": ""},
            "targets/ort may not know targets/tflite",
        ),
        (
            {"targets/language/a.py": "from modelwright.targets.ort.b import x", "targets/ort/b.py": ""},
            "targets/language may not know targets/ort",
        ),
        (
            {"harness/run/a.py": "from modelwright.targets.ort.b import x", "targets/ort/b.py": ""},
            "harness may not know targets/ort",
        ),
        (
            {"targets/graphs/a.py": "from modelwright.targets.table import x", "targets/table.py": ""},
            "targets/graphs may not know targets/table",
        ),
        (
            {"harness/run/a.py": "from modelwright.harness.comparing import x", "harness/comparing.py": ""},
            "harness/run may not know harness/comparing",
        ),
        (
            {"harness/formatting.py": "from modelwright.harness.report.a import x", "harness/report/a.py": ""},
            "harness/formatting may not know harness/report",
        ),
    ],
)
def test_a_fault_is_found(tmp_path: Path, files: dict[str, str], fault: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = find_faults(tmp_path)
    assert any(fault in sentence for sentence in found), found


def test_what_goes_with_the_direction_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "a.py").write_text("")
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "b.py").write_text("from modelwright.core.a import x\nimport json")
    (tmp_path / "compression").mkdir()
    (tmp_path / "compression" / "c.py").write_text("")
    (tmp_path / "harness" / "study").mkdir()
    (tmp_path / "harness" / "study" / "d.py").write_text("from modelwright.compression.c import x")
    assert find_faults(tmp_path) == []


def test_every_room_is_read() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        installed = tomllib.load(file)["tool"]["setuptools"]["package-dir"]
    assert set(installed) == {f"modelwright.{room}" for room in ROOMS}
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} <= set(ROOMS)


IMPORTING = frozenset(
    {"import_module", "__import__", "spec_from_file_location", "exec_module", "run_module", "run_path", "exec", "eval"}
)
IMPORTING_MODULES = {
    "modelwright.cli.main",
    "modelwright.cli.schema",
    "modelwright.core.outputs.reference",
    "modelwright.core.process.serve",
    "modelwright.core.samples.python_source",
    "modelwright.exporters.trace",
    "modelwright.harness",
    "modelwright.harness.run.worker",
    "modelwright.targets",
    "modelwright.targets.language.table",
    "modelwright.targets.pytorch.session",
    "modelwright.targets.readiness",
    "modelwright.targets.table",
    "modelwright.targets.tflite.converter.convert",
}
"""Commands, public names and targets on first use; entry points of children; sources; packages of vendors."""


def test_what_imports_by_a_name_is_known() -> None:
    """A name that is put together while the program runs is beyond a reader of the source."""
    found = set()
    for name, path in read_modules(ROOT).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            used = {node.id} if isinstance(node, ast.Name) else set()
            if isinstance(node, ast.Attribute):
                used = {node.attr} - {"exec", "eval"}  # as of torch's modules; lint refuses the built-in ones
            elif isinstance(node, ast.ImportFrom):
                used = {alias.name for alias in node.names}
            if used & IMPORTING:
                found.add(name)
    assert found == IMPORTING_MODULES


STARTING = frozenset({"subprocess", "multiprocessing", "_posixsubprocess", "pty"})
STARTING_CALLS = re.compile(r"os\.(system|popen|fork|forkpty|exec\w+|spawn\w+|posix_spawnp?)")
LINUX_ONLY = frozenset({"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "curses", "readline"})


def name_imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    return {(node.module or "").partition(".")[0]} if isinstance(node, ast.ImportFrom) and not node.level else set()


def test_processes_are_started_in_one_place() -> None:
    """Where they are isolated, guarded, and bounded in what they may cost."""
    starting = set()
    for name, path in read_modules(ROOT).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            calls = isinstance(node, ast.Call) and STARTING_CALLS.fullmatch(ast.unparse(node.func))
            if calls or name_imported(node) & STARTING:
                starting.add(name)
    assert starting == {"modelwright.core.process.transport"}


def test_nothing_that_linux_alone_has_is_imported_before_it_is_needed() -> None:
    found = []
    for name, path in read_modules(ROOT).items():
        waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
        while waiting:
            node = waiting.pop()
            found += [(name, module) for module in name_imported(node) & LINUX_ONLY]
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                waiting += ast.iter_child_nodes(node)
    assert found == []
