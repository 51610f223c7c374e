"""How commands tell their results: text in columns, or JSON in a file."""

import argparse
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from isochrone.router.errors import ConfigError

STANDARD_OUTPUT = "-"


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """`--json FILE`."""
    parser.add_argument(
        "--json",
        type=_target,
        metavar="FILE",
        help="write the result as JSON as well (-: instead, to stdout)",
    )


def _target(text: str) -> str:
    return text if text == STANDARD_OUTPUT else str(output_file(text))


def output_file(text: str) -> Path:
    """A file that a command line names for its result; long work must not end where it fails.

    Raises:
        ArgumentTypeError: it cannot be written.
    """
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(
            f"{text} cannot be written: {path.parent} must be a folder"
        )
    try:
        if path.is_file():
            path.open("ab").close()
        elif not path.exists():
            tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be written: {error.strerror}") from error
    return path


def output_folder(text: str) -> Path:
    """A folder that a command line names for its result, there already or to be made.

    Raises:
        ArgumentTypeError: nothing can be written there.
    """
    path = Path(text)
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be written: {error.strerror}") from error
    return path


def write_json(target: str, value: object) -> None:
    """Write a result to a file, or to standard output where the target is `-`.

    Raises:
        ConfigError: the file cannot be written.
    """
    text = msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
    if target == STANDARD_OUTPUT:
        sys.stdout.write(text.decode())
        return
    try:
        Path(target).write_bytes(text)
    except OSError as error:
        raise ConfigError(f"--json {target}: cannot be written: {error.strerror}") from error


def tell(args: argparse.Namespace, value: object, lines: Iterable[str]) -> None:
    """A result for people, for programs, or for both, as `--json` says."""
    if args.json is not None:
        write_json(args.json, value)
    if args.json != STANDARD_OUTPUT:
        for line in lines:
            print(line)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text, each column as wide as its widest cell; numbers stand to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numeric = [all(map(_is_number, column[1:])) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in rows
    ]


def _is_number(cell: str) -> bool:
    return not cell or cell[0].isdecimal()


def size(count_bytes: int) -> str:
    """A number of bytes for people: `512 B`, `16.8 kB`, `1.21 GB`."""
    if count_bytes < 1000:
        return f"{count_bytes} B"
    units = ("kB", "MB", "GB", "TB")
    power = min(len(units), (len(str(count_bytes)) - 1) // 3)
    return f"{count_bytes / 1000**power:.3g} {units[power - 1]}"


def milliseconds(seconds: float) -> str:
    """Seconds for people."""
    return f"{seconds * 1000:.1f} ms"
