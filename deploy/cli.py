"""The `isochrone` command: one table of commands, imported only when they are called."""

import argparse
import errno
import importlib
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from types import ModuleType
from typing import Protocol, cast

from isochrone.router.errors import ConfigError, IsochroneError
from isochrone.router.process.document import did_you_mean
from isochrone.router.process.output import close_output

FINE = 0
PROBLEM = 1
USAGE = 2
INTERRUPTED = 130
"""What a shell calls a process that Ctrl-C ended."""
TERMINATED = 143
"""What a shell calls a process that SIGTERM ended."""
UNREAD = 141
"""What a shell calls a process whose reader has closed the pipe (`| head`)."""

# With these, writing fails without a file's name: to standard output, or in the middle of a file.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

_WHOLE = "edge,torch,cloud,demo"
_EXTRAS = {
    "boto3": "s3",
    "cryptography": "edge",
    "onnx": "variants",
    "onnxruntime": "edge",
    "PIL": "demo",
    "ray": "cloud",
    "safetensors": "torch",
    "sklearn": "demo",
    "torch": "torch",
}
"""Which of our extras brings a package."""


class Command(Protocol):
    """What a command's module holds."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's own arguments."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Do it; the exit code."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command lives, its line in the overview, and the extras that it needs all of."""

    module: str
    help: str
    extra: str | None = None


COMMANDS = {
    "demo": Entry("demo.command", "play six scenes on a whole system and check each", _WHOLE),
    "up": Entry(
        "up",
        "start a whole system on this machine and keep it until Ctrl-C",
        _WHOLE,
    ),
    "router": Entry("router", "run one router until SIGTERM"),
    "agent": Entry("agent", "run one edge agent until SIGTERM"),
    "cloud": Entry("cloud", "run one region's Ray Serve application until SIGTERM"),
    "check": Entry("check", "say everything that is wrong in a configuration file"),
    "status": Entry("status", "show the fleet as a running router sees it"),
    "infer": Entry("infer", "send one image to a model and say who answered and why"),
    "explain": Entry("explain", "say why a request was answered where it was"),
    "simulate": Entry("simulate", "try routing rules against each other in virtual time"),
    "models": Entry("models", "list, pull, load, unload or roll back an agent's models"),
    "doctor": Entry("doctor", "check an edge agent's machine and say what to do"),
    "unit": Entry("unit", "print a hardened systemd service for an edge agent"),
    "package": Entry("packages.package", "build, inspect or verify a model package"),
    "package export": Entry("packages.export", "add an ONNX variant of a torch one", "variants"),
    "package quantize": Entry(
        "packages.quantize", "add a variant with weights of 8 bits", "variants"
    ),
    "package prune": Entry(
        "packages.prune", "add a variant with fewer rows and channels", "variants"
    ),
    "package distill": Entry(
        "packages.distill", "train a smaller network to answer alike", "variants"
    ),
}


PARTS = {"picture": "isochrone.deploy.packages.picture"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0: fine; 1: a problem was found; 2: the usage or the configuration is wrong.
    """
    try:
        return _ended(list(sys.argv[1:] if arguments is None else arguments))
    except BrokenPipeError:
        close_output()
        return UNREAD


def _ended(arguments: list[str]) -> int:
    try:
        try:
            return _dispatch(arguments)
        finally:
            sys.stdout.flush()  # a closed pipe is noticed here, not when Python exits
    except IsochroneError as error:
        print(f"isochrone: {error.message}", file=sys.stderr)
        return USAGE if isinstance(error, ConfigError) else PROBLEM
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:  # a file that a command was told to use, or a full disk
        if error.filename is None and error.errno not in _FULL:
            raise
        close_output()  # what is left in its buffer may not fit either
        print(f"isochrone: {error.filename or 'the output'}: {error.strerror}", file=sys.stderr)
        return USAGE


def _dispatch(arguments: list[str]) -> int:
    overview = _overview()
    chosen = overview.parse_args(arguments)
    if chosen.command is None:
        overview.print_help(sys.stderr)
        return USAGE
    name, rest = _name(chosen.command, chosen.rest)
    entry = COMMANDS.get(name)
    if entry is None:
        hint = did_you_mean(name, COMMANDS) or "see isochrone --help"
        overview.error(f"{name!r} is no command; {hint}")
    try:
        command = cast(Command, importlib.import_module(f"isochrone.deploy.{entry.module}"))
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see program: until here
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if name.startswith("package"):
            signal.signal(signal.SIGTERM, _terminated)
        return command.run(_arguments(name, command).parse_args(rest))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        extra = entry.extra or _EXTRAS[package]
        raise ConfigError(
            f"{name} needs {package}, which is not installed: pip install 'isochrone[{extra}]'"
        ) from error


def _terminated(*_: object) -> None:
    """End as an exception does, so that drafts of packages are removed."""
    raise SystemExit(TERMINATED)


def part(name: str) -> ModuleType:
    """What only some arguments of a command need.

    Raises:
        ModuleNotFoundError: something that it needs is not installed; `main` says which extra.
    """
    return importlib.import_module(PARTS[name])


def _name(word: str, rest: list[str]) -> tuple[str, list[str]]:
    """A command's name may be two words; and what is left for it."""
    two = " ".join([word, *rest[:1]])
    return (two, rest[1:]) if two in COMMANDS else (word, rest)


def _overview() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {entry.help}" for name, entry in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="isochrone",
        usage="isochrone [options] COMMAND ...",
        description="One inference endpoint: the nearest warm model answers, inside the law.",
        epilog="\n".join(["commands:", *lines, "", "isochrone COMMAND --help tells the rest"]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"isochrone {version('isochrone')}")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _arguments(name: str, command: Command) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"isochrone {name}",
        description=command.HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
