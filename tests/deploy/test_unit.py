"""`isochrone unit`: what systemd itself thinks of the service that is printed."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from isochrone.deploy.cli import USAGE, main
from isochrone.deploy.knobs import MANUAL
from isochrone.deploy.unit import TEMPLATE, rendered, shortcomings
from isochrone.edge_agent.app import check
from isochrone.router.errors import ConfigError

MOST_EXPOSED = 3.0
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "agent.yaml"
    path.write_text(json.dumps({"name": "e", "region": "eu", "packages": ".", "drain_s": 7}))
    return path


@pytest.fixture
def unit(config, capsys, tmp_path):
    assert main(["unit", "--config", str(config), "--memory", "512M"]) == 0
    path = tmp_path / "isochrone-agent.service"
    path.write_text(capsys.readouterr().out)
    return path


def analyzed(*words):
    return subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, check=False, timeout=60
    )


def test_it_starts_this_installation_with_this_configuration(unit, config):
    text = unit.read_text()
    assert f"ExecStart={sys.executable} -m isochrone.edge_agent {config}\n" in text
    assert "TimeoutStopSec=22\n" in text, "the drain, and a little more"
    assert "MemoryMax=512M\n" in text
    assert not re.search("@[a-z_]+@", text), "nothing is left to fill in"


@needs_systemd
def test_systemd_finds_no_fault_in_it(unit):
    done = analyzed("verify", str(unit))
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_systemd_finds_it_well_protected(unit):
    done = analyzed("security", "--offline=true", f"--threshold={MOST_EXPOSED * 10:.0f}", str(unit))
    (exposed,) = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert float(exposed) <= MOST_EXPOSED
    assert done.returncode == 0


def test_what_the_service_may_not_write_is_told(config, capsys):
    config.write_text('{"name": "e", "region": "eu", "packages": ".", "access_log": "a.jsonl"}')
    assert main(["unit", "--config", str(config)]) == 0
    told = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in told] == ["packages", "access_log"]
    assert "cannot pull, update or roll back" in told[0]
    assert "/var/lib/isochrone" in told[0]
    assert "/var/log/isochrone" in told[1]


def test_the_manuals_example_writes_only_where_the_service_may(tmp_path):
    (example,) = re.findall(r"agent\.yaml <<'EOF'\n(.*?)EOF\n", MANUAL.read_text(), re.DOTALL)
    path = tmp_path / "agent.yaml"
    path.write_text(example)
    assert shortcomings(check(path)) == []


def test_what_lies_in_a_home_may_be_read(config):
    assert "ProtectHome=yes" in rendered(config, "80%", "/usr/bin/python3")
    assert "ProtectHome=read-only" in rendered(config, "80%", "/home/me/venv/bin/python")


@needs_systemd
def test_a_path_with_blanks_and_signs_is_quoted(tmp_path):
    folder = tmp_path / 'my shop\'s 100% $HOME "x" \\'
    folder.mkdir()
    path = folder / "agent.yaml"
    path.write_text(json.dumps({"name": "e", "region": "eu", "packages": "."}))
    assert check(path)
    unit = tmp_path / "isochrone-agent.service"
    unit.write_text(rendered(path, "80%"))
    done = analyzed("verify", str(unit))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("memory", ["much", "-1", "80 %", "1\nUser=root"])
def test_a_size_that_is_none_is_refused(config, memory, capsys):
    assert main(["unit", "--config", str(config), "--memory", memory]) == USAGE
    assert "512M" in capsys.readouterr().err


def test_a_path_of_two_lines_is_refused(tmp_path):
    folder = tmp_path / "a\nUser=root"
    folder.mkdir()
    path = folder / "agent.yaml"
    path.write_text(json.dumps({"name": "e", "region": "eu", "packages": "."}))
    with pytest.raises(ConfigError, match="plainer path"):
        rendered(path, "80%")


def test_the_watchdog_is_on_and_the_manager_is_told():
    text = TEMPLATE.read_text()
    for line in ("Type=notify", "WatchdogSec=30", "Restart=on-failure", "ProtectSystem=strict"):
        assert f"\n{line}\n" in text


def test_a_model_whose_process_the_kernel_kills_takes_no_agent_with_it():
    assert "\nOOMPolicy=continue\n" in TEMPLATE.read_text()
