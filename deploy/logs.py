"""`--log-level` and `--log-format`, for the commands that run parts."""

import argparse
from typing import Any


def add_log_arguments(parser: argparse.ArgumentParser) -> None:
    """Both; None where they are not given."""
    levels = ("debug", "info", "warning", "error")
    parser.add_argument("--log-level", choices=levels, help="over what the configuration says")
    parser.add_argument("--log-format", choices=("text", "json"), help="likewise")


def log_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What was given, as the `log` of a configuration file."""
    given = {"level": args.log_level, "format": args.log_format}
    return {key: value for key, value in given.items() if value is not None}
