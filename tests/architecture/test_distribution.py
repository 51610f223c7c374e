"""What is installed: every import is declared, and the wheel holds what the commands read."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("router", "edge_agent", "cloud", "deploy")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].items()
    lists = [project["dependencies"], *(some for name, some in extras if name != "dev")]
    names = [re.match(r"[A-Za-z0-9._-]+", one) for some in lists for one in some]
    return {_normal(name[0]) for name in names if name}


def _imported() -> dict[str, str]:
    """Every top-level module that is not the standard library's or ours, with an importer."""
    found: dict[str, str] = {}
    for path in (p for package in PACKAGES for p in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            found |= {name.partition(".")[0]: str(path.relative_to(ROOT)) for name in names}
    ours = {"isochrone", *sys.stdlib_module_names}
    return {name: path for name, path in found.items() if name not in ours}


def test_every_imported_distribution_is_declared():
    brought_by, declared = packages_distributions(), _declared()
    undeclared = {
        f"{path} imports {module}"
        for module, path in _imported().items()
        if not {_normal(one) for one in brought_by.get(module, [module])} & declared
    }
    assert undeclared == set()


def test_the_wheel_holds_what_the_commands_read(tmp_path):
    build = "import sys; from setuptools import build_meta as b; print(b.build_wheel(sys.argv[1]))"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # noqa: TID251  # the child's
    tree = tmp_path / "tree"
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout.split(b"\0")
    for name in filter(None, map(os.fsdecode, names)):
        if not name.startswith("tests/") and (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)],
        cwd=tree,
        env=environment,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {re.sub(r"^[^/]+\.data/data/", "", name) for name in archive.namelist()}
        archive.extractall(tmp_path / "site")
    scenarios = {path.name for path in (ROOT / "configs" / "scenarios").glob("*.yaml")}
    assert {f"share/isochrone/scenarios/{name}" for name in scenarios} <= held
    assert "isochrone/deploy/systemd/isochrone-agent.service" in held
    assert {f"isochrone/{package}/py.typed" for package in PACKAGES} <= held
    tops = {name.partition("/")[0] for name in held if name.endswith(".py")}
    assert tops == {"isochrone"}
