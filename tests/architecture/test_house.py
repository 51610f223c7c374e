"""The rules of the house that no linter knows."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("router", "edge_agent", "cloud", "deploy")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
DRAWERS = {"common", "shared", "utils", "util", "helpers", "helper", "constants", "manager", "misc"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_says_what_it_is_for(path):
    said = ast.get_docstring(tree_of(path))
    assert said, "no docstring"
    assert said.splitlines()[0].endswith((".", ":")), "its first line is a sentence"


def test_there_are_rooms_and_no_drawers():
    assert [name_of(p) for p in MODULES if p.stem in DRAWERS or p.parent.name in DRAWERS] == []


def test_nothing_is_imported_inside_a_function():
    inside = [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        for function in ast.walk(tree_of(path))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert inside == []


def test_lazy_imports_stand_in_tables():
    lazy = {name_of(path) for path in MODULES if "import_module" in path.read_text()}
    assert lazy == {
        "deploy/cli.py",
        "edge_agent/artefacts/parts.py",
        "edge_agent/runtime/engines/table.py",
    }


def test_the_wall_clock_is_read_where_processes_are_put_together():
    """It may jump by days: nothing else may know what time it is, so no duration can follow it."""
    readers = {
        name_of(path)
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom)
        and node.module == "isochrone.router.process.clock"
        and "wall" in {alias.name for alias in node.names}
    }
    assert readers == {"router/daemon.py", "edge_agent/app.py", "deploy/doctor.py"}


def test_onnxruntime_is_imported_where_its_telemetry_is_off():
    imports = re.compile("^(import|from) onnxruntime", re.MULTILINE)
    importers = {name_of(path) for path in MODULES if imports.search(path.read_text())}
    assert importers == {"edge_agent/runtime/engines/ort.py", "deploy/packages/quantize.py"}
    quantize = tree_of(ROOT / "deploy/packages/quantize.py")
    first = next(node for node in quantize.body if isinstance(node, ast.Import | ast.ImportFrom))
    assert [alias.name for alias in first.names] == ["ort"]


def test_only_the_law_makes_permits():
    makers = {
        name_of(path)
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Permit"
    }
    assert makers == {"router/law/permit.py"}


def test_of_the_agent_the_cloud_knows_the_runtime_only():
    known = {
        node.module
        for path in MODULES
        if path.is_relative_to(ROOT / "cloud")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("isochrone.edge_agent")
    }
    assert known
    assert all(module and module.startswith("isochrone.edge_agent.runtime") for module in known)


def test_the_constraints_can_be_used_anywhere():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.lstrip().startswith("#")]
    pin = re.compile(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*( ; .+)?")
    assert [line for line in pins if not pin.fullmatch(line)] == [], "no +local, option or URL"
    assert any(line.startswith("torch==2.13.") for line in pins)


def test_every_part_is_reached_inside_the_import_package():
    """In the folder of the repository an import without it would work, once installed it fails."""
    outside = re.compile(rf"(import|from|-m|-m\",) \"?({'|'.join(PACKAGES)})\\b")
    files = [*MODULES, *(ROOT / "tests").rglob("*.py"), ROOT / "Makefile"]
    assert [name_of(path) for path in files if outside.search(path.read_text())] == []
