"""The import contracts bite: each is broken once in a copy of the house, and seen to be broken."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BREAKS = {
    "deploy > cloud > edge_agent > router": (
        "router/wire/http.py",
        "import isochrone.edge_agent.app",
    ),
    "The router's own layers": ("router/law/permit.py", "import isochrone.router.dispatch.attempt"),
    "a room that is not named": ("router/utils.py", '"""A drawer."""'),
    "The runtime's own layers": (
        "edge_agent/runtime/package/manifest.py",
        "import isochrone.edge_agent.runtime.residence.pool",
    ),
    "Agents and the cloud know": (
        "edge_agent/config.py",
        "import isochrone.router.fleet.ledger",
    ),
    "deploy joins whole parts": ("deploy/status.py", "import isochrone.router.fleet.ledger"),
    "Of the agent, the cloud knows": ("cloud/config.py", "import isochrone.edge_agent.app"),
    "The router needs no engine": ("router/wire/tensor.py", "import onnxruntime"),
    "An agent needs torch only": ("edge_agent/runtime/residence/pool.py", "import onnx"),
}


@pytest.mark.parametrize(("name", "path", "line"), [(k, *v) for k, v in BREAKS.items()], ids=BREAKS)
def test_a_broken_contract_is_caught(tmp_path, name, path, line):
    for package in ("router", "edge_agent", "cloud", "deploy"):
        shutil.copytree(ROOT / package, tmp_path / "isochrone" / package)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "isochrone" / path).open("a") as file:
        file.write(f"\n{line}\n")
    lint = Path(sys.executable).with_name("lint-imports")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}  # noqa: TID251  # the child's, not ours
    run = subprocess.run(
        [lint, "--no-cache"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    broken = [row for row in run.stdout.splitlines() if row.endswith("BROKEN")]
    assert any(name in row for row in broken), broken
