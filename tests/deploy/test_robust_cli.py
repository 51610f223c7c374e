"""No command ends in a traceback: files, closed pipes, Ctrl-C, extras that are not installed."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from isochrone.deploy.cli import _EXTRAS, COMMANDS, INTERRUPTED, PROBLEM, UNREAD, USAGE, main
from isochrone.deploy.result import output_file, output_folder, size
from tests.conftest import write_double
from tests.deploy.test_doctor import write

ROOT = Path(__file__).parents[2]
FILES = {
    "absent": lambda folder: folder / "absent",
    "a folder": lambda folder: folder,
    "no text": lambda folder: _written(folder / "binary", b"\xff\xfe\x00"),
    "text": lambda folder: _written(folder / "text", b"one line\n"),
}
TAKE_A_FILE = [
    "agent --config",
    "router --config",
    "cloud --config",
    "check --config",
    "doctor --config",
    "unit --config",
    "simulate",
    "simulate worldwide --rtt",
    "simulate worldwide --cities",
    "simulate bursty --trace",
    "infer m --router http://127.0.0.1:1 --image",
    "infer m --router http://127.0.0.1:1 --image x --key-file",
    "models list --agent http://127.0.0.1:1 --token-file",
    "package inspect",
    "package verify",
    "package build --name m --onnx",
    "package sign nowhere --key",
    "package verify nowhere --trusted-key",
    "package quantize",
    "package export",
    "package prune --keep 0.5",
]
OPTIONAL = sorted(_EXTRAS)


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("command", TAKE_A_FILE)
def test_a_file_that_cannot_be_used_is_one_clear_line(tmp_path, capsys, command, kind):
    path = FILES[kind](tmp_path)
    code: str | int | None
    try:
        code = main([*command.split(), str(path)])
    except SystemExit as exit_:  # argparse's own refusal
        code = exit_.code
    captured = capsys.readouterr()
    assert code in (1, 2), captured
    assert "Traceback" not in captured.err + captured.out
    assert captured.err + captured.out


NOT_REGULAR = {
    "a FIFO is no regular file": lambda folder: _fifo(folder / "x"),
    "a directory is no regular file": lambda folder: folder,
    "a device is no regular file": lambda _: Path("/dev/zero"),
    "is over 1048576 bytes": lambda folder: _huge(folder / "huge"),
}


def _fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def _huge(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(1 << 40)
    return path


@pytest.mark.parametrize("told", NOT_REGULAR)
@pytest.mark.parametrize("command", ["agent", "router", "cloud", "check", "doctor", "unit"])
def test_a_configuration_that_is_no_regular_file_is_refused(tmp_path, capsys, command, told):
    """A FIFO's reader would wait for its writer."""
    path = NOT_REGULAR[told](tmp_path)
    assert main([command, "--config", str(path)]) in (1, 2)
    captured = capsys.readouterr()
    said = captured.err + captured.out
    assert told in said
    assert str(path) in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("models pull m --version 1 --digest abc", "'abc' is no digest: that is 64 hexadecimal"),
        ("models list --agent 127.0.0.1:8091", "'127.0.0.1:8091' is no address: write http://"),
        ("status --admin http://[::1", "is no address"),
        ("infer m --image x --router ftp://h", "is no address"),
        ("up --router-port 65536", "'65536' is no port: 1 to 65535, or 0 for any"),
        ("up --admin-port -1", "'-1' is no port"),
        ("status --json nowhere/status.json", "nowhere/status.json cannot be written"),
        ("simulate worldwide --json /proc/x", "argument --json: /proc/x cannot be written"),
        ("simulate worldwide --svg /proc/x", "argument --svg: /proc/x cannot be written"),
        ("simulate worldwide --json /proc/version", "/proc/version cannot be written"),
        ("package build --onnx x --name m --output /proc/x/y", "/proc/x/y cannot be written"),
        ("package build --onnx x --name m --output /dev/null", "cannot be written: Not a direc"),
    ],
)
def test_a_wrong_value_is_refused_before_any_work(capsys, arguments, told):
    with pytest.raises(SystemExit) as exit_:
        main(arguments.split())
    assert exit_.value.code == USAGE
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("package build --onnx x --name ../x --output OUT", "--name ../x: must be letters,"),
        ("package build --onnx x --name x --version a/b --output OUT", "--version a/b: must be"),
        ("models load ../x", "MODEL ../x: must be letters,"),
        ("models pull m --version ../../x", "--version ../../x: must be letters,"),
        ("models load m --version ^x", "--version ^x: must be letters,"),
        ("agent --config CONFIG", ":1:7: name must be letters,"),
        ("check --config CONFIG", ":1:7: name must be letters,"),
    ],
)
def test_what_a_name_may_be_is_told_in_words(tmp_path, capsys, arguments, told):
    config = _written(tmp_path / "agent.yaml", b"name: a b\nregion: r\npackages: .\n")
    words = {"CONFIG": str(config), "OUT": str(tmp_path)}
    assert main([words.get(word, word) for word in arguments.split()]) in (PROBLEM, USAGE)
    captured = capsys.readouterr()
    said = captured.err + captured.out
    assert told in said
    assert "(?" not in said
    assert "[A-Z" not in said


def test_a_folder_that_is_no_store_is_one_line(tmp_path, capsys):
    for name in ("a/b", "c/d"):
        (tmp_path / name).mkdir(parents=True)
    assert main(["package", "inspect", str(tmp_path)]) == PROBLEM
    assert capsys.readouterr().out == f"problem: {tmp_path}: holds no package (NAME/VERSION/)\n"


def test_pickled_data_is_refused_without_numpys_advice(tmp_path, capsys):
    package = write_double(tmp_path / "packages")
    data = tmp_path / "data.npy"
    np.save(data, np.array([{}], object), allow_pickle=True)
    command = ["package", "quantize", str(package.path), "--calibration", str(data)]
    assert main([*command, "--mode", "static"]) == USAGE
    said = capsys.readouterr().err
    assert "is no .npz or .npy file of plain numbers; save it with numpy.savez" in said
    assert "unsafe" not in said


def test_a_check_of_an_output_leaves_nothing_behind(tmp_path):
    (tmp_path / "there").write_bytes(b"kept")
    for name in ("there", "new"):
        assert output_file(str(tmp_path / name)) == tmp_path / name
    assert output_folder(str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"
    assert output_file("/dev/null") == Path("/dev/null")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"there": b"kept"}


def test_a_demo_whose_folder_is_there_is_refused_before_it_trains(tmp_path, capsys):
    arguments = ["demo", "--keep", str(tmp_path), "--cache", str(tmp_path / "cache")]
    assert main(arguments) == USAGE
    assert "name a new one" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_without_extras_a_command_works_or_names_the_extra(name):
    """As after `pip install isochrone`: every package that only an extra brings is missing."""
    blocked = f"import sys\nfor name in {OPTIONAL}: sys.modules[name] = None\n"
    words = [*name.split(), "--help"]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{blocked}from isochrone.deploy.cli import main\nsys.exit(main({words}))",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    if done.returncode:
        assert done.returncode == USAGE
        assert re.search(r"is not installed: pip install 'isochrone\[[a-z,]+\]'", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [("simulate --list", UNREAD), ("--help", 0), ("check --help", 0)],  # argparse goes on
)
def test_a_closed_pipe_is_no_error(arguments, code):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "isochrone.deploy.cli", *arguments.split()],
            stdout=closed,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (code, b"")


def test_ctrl_c_ends_a_command_without_a_traceback():
    words = "simulate worldwide --jobs 1 --seconds 11 --load 0.1 --algorithm c3 --seed 1-900"
    program = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from isochrone.deploy.cli import main\n"
        f"sys.exit(main({words.split()!r}))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"[1/900]")
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait() == INTERRUPTED
    assert b"Traceback" not in rest


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize(
    "command",
    [
        "simulate --list",
        "package inspect PACKAGES",
        "package inspect PACKAGES --json -",
        "package verify PACKAGES",
        "check --config AGENT",
        "doctor --config AGENT",
        "unit --config AGENT",
    ],
)
def test_a_full_disk_is_one_line(tmp_path, command, buffered):
    write_double(tmp_path / "packages")
    agent = write(tmp_path)
    words = {"PACKAGES": str(tmp_path / "packages"), "AGENT": str(agent)}
    python = ["env", f"PYTHONUNBUFFERED={'' if buffered else 1}", sys.executable]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*python, "-m", "isochrone.deploy.cli", *(words.get(w, w) for w in command.split())],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    *warnings, last = done.stderr.splitlines()
    assert (done.returncode, last) == (USAGE, b"isochrone: the output: No space left on device")
    assert not warnings or command.startswith("unit ")


@pytest.mark.parametrize(
    ("command", "module"),
    [
        (command, module)
        for command in ("--help", "status", "doctor --config x", "agent --config x")
        for module in ("argparse", "isochrone.router.errors", "msgspec", "yaml")
    ]
    + [
        ("status", "isochrone.deploy.status"),
        ("status", "urllib.request"),
        ("doctor --config x", "isochrone.edge_agent.config"),
        ("agent --config x", "isochrone.edge_agent.app"),
        ("router --config x", "aiohttp"),
        ("simulate worldwide", "isochrone.router.simulate"),
        ("package verify x", "numpy"),
    ],
)
def test_ctrl_c_during_the_imports_is_no_traceback(command, module):
    """The signal comes when the module is looked for: any instant of the start can be had so."""
    program = (
        "import os, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in background jobs
        "sys.meta_path.insert(0, Interrupt())\n"
        f"sys.argv[1:] = {command.split()!r}\n"
        "from isochrone.deploy.program import main\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, cwd=ROOT, check=False
    )
    assert done.returncode in (-signal.SIGINT, INTERRUPTED)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_an_ignored_interrupt_stays_ignored():
    """As under nohup, or behind & in a script."""
    program = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from isochrone.deploy.program import main\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.argv[1:] = ['--version']\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"isochrone ")


def test_every_command_that_a_text_names_exists():
    """In hints, help, manuals and shipped files alike."""
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("configs/**/*.yaml")]
    for package in ("router", "edge_agent", "cloud", "deploy"):
        files += ROOT.glob(f"{package}/**/*.py")
    command = re.compile(r"(?:`|\bbin/|^\s+|[;(:] |see )isochrone ([a-z]+)", re.MULTILINE)
    words = set(COMMANDS) | {name.split()[0] for name in COMMANDS}
    named = {(path.name, word) for path in files for word in command.findall(path.read_text())}
    assert len(named) > 20
    assert {(file, word) for file, word in named if word not in words} == set()


@pytest.mark.parametrize(
    ("count_bytes", "told"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (16_790, "16.8 kB"),
        (4_200_000, "4.2 MB"),
        (1_210_000_000, "1.21 GB"),
        (3 * 10**12, "3 TB"),
    ],
)
def test_sizes_are_told_in_sensible_units(count_bytes, told):
    assert size(count_bytes) == told
