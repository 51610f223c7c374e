"""The `isochrone` command: its table, its exit codes, and what it does not import."""

import importlib
import subprocess
import sys

import pytest

from isochrone.deploy.cli import COMMANDS, FINE, PROBLEM, USAGE, main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_is_there_and_says_the_same_of_itself(name):
    module = importlib.import_module(f"isochrone.deploy.{COMMANDS[name].module}")
    assert COMMANDS[name].help == module.HELP
    assert callable(module.add_arguments)
    assert callable(module.run)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([*name.split(), "--help"])
    assert exit_.value.code == FINE
    assert COMMANDS[name].help in " ".join(capsys.readouterr().out.split())


def test_help_lists_every_command_and_imports_none():
    probe = (
        "import sys; from isochrone.deploy.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "known = {'torch', 'ray', 'onnxruntime', 'aiohttp', 'numpy', 'isochrone.deploy.status'}\n"
        "sys.exit(', '.join(known & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


def test_what_a_command_needs_and_is_not_installed_is_named():
    probe = (
        "import sys; sys.modules['onnx'] = None; from isochrone.deploy.cli import main\n"
        "sys.exit(main(['package', 'quantize', 'there']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=False
    )
    assert done.returncode == USAGE
    assert "package quantize needs onnx" in done.stderr
    assert "pip install 'isochrone[variants]'" in done.stderr


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == FINE
    assert capsys.readouterr().out.startswith("isochrone 0.")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["stauts"], "'stauts' is no command; did you mean status?"),
        (["router", "--log-level", "loud"], "invalid choice: 'loud'"),
        (["router"], "the following arguments are required: --config"),
        (["status", "--nonsense"], "unrecognized arguments: --nonsense"),
    ],
    ids=["unknown command", "wrong value", "missing argument", "unknown argument"],
)
def test_wrong_usage_is_2(arguments, told, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == USAGE
    captured = capsys.readouterr()
    assert told in captured.err
    assert captured.out == ""


def test_no_command_at_all_is_2_and_shows_the_overview(capsys):
    assert main([]) == USAGE
    assert "commands:" in capsys.readouterr().err


def test_a_wrong_configuration_is_2_and_one_clear_line(tmp_path, capsys):
    config = tmp_path / "router.yaml"
    config.write_text("name: r\nregion: eu-west\nregions_file: regions.yaml\nlimit: 3\n")
    assert main(["router", "--config", str(config)]) == USAGE
    captured = capsys.readouterr()
    assert f"isochrone: {config}:4:1: limit is not a key here" in captured.err
    assert captured.out == ""


def test_what_cannot_be_reached_is_1(capsys):
    assert main(["status", "--admin", "http://127.0.0.1:1"]) == PROBLEM
    assert "gives no answer" in capsys.readouterr().err
