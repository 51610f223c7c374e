"""The Makefile: what it explains, and what it says on a machine that lacks something."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(folder, *words):
    return subprocess.run(
        ["make", "-f", ROOT / "Makefile", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def clone(tmp_path):
    """A folder with the files that an installation depends on."""
    for name in ("pyproject.toml", "setup.py", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def python(folder, *, version_ok, venv_ok):
    """A python that answers the Makefile's two questions so, and can do nothing else."""
    path = folder / "python"
    path.write_text(
        "#!/bin/sh\n"
        'case "$2" in\n'
        f"  *version_info*) exit {int(not version_ok)};;\n"
        f"  *ensurepip*) exit {int(not venv_ok)};;\n"
        "esac\n"
        "exit 7\n"
    )
    path.chmod(0o755)
    return f"PYTHON={path}"


def test_help_explains_every_word(clone):
    done = make(clone, "help")
    explained = set(re.findall(r"make ([a-z-]+) +\S", done.stdout))
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    words = set(phony.split())
    assert done.returncode == 0
    assert explained == words
    assert make(clone).stdout == done.stdout


def test_an_old_python_is_told_what_is_needed(clone):
    done = make(clone, "venv", python(clone, version_ok=False, venv_ok=True))
    assert done.returncode == 2
    assert "needs Python 3.11 or newer" in done.stderr
    assert not (clone / ".venv").exists()


def test_a_python_without_venv_is_told_what_to_install(clone):
    done = make(clone, "demo", python(clone, version_ok=True, venv_ok=False))
    assert done.returncode == 2
    assert "apt install python3-venv" in done.stderr


def test_an_installation_that_was_interrupted_runs_again(clone):
    """An environment without its stamp is made anew; here that ends in the fake python."""
    (clone / ".venv" / "bin").mkdir(parents=True)
    done = make(clone, "venv", python(clone, version_ok=True, venv_ok=True))
    assert done.returncode == 2
    assert "-m venv --clear .venv" in done.stdout


def test_what_is_installed_is_not_installed_again(clone):
    venv = clone / ".venv"
    venv.mkdir()
    for stamp in (".made", ".ready-demo"):
        (venv / stamp).touch()
    assert "Nothing to be done" in make(clone, "venv").stdout
    (clone / "constraints.txt").touch()
    assert "pip" in make(clone, "-n", "venv").stdout


def test_no_machine_and_no_registry_is_named():
    text = (ROOT / "Makefile").read_text() + (ROOT / ".ci" / "run").read_text()
    assert not re.search(r"https?://|index-url|/(work|home|root)/", text)
