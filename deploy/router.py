"""`isochrone router`: one router, for real deployments."""

import argparse
from pathlib import Path

from isochrone.deploy.logs import add_log_arguments
from isochrone.router import daemon

HELP = "run one router until SIGTERM"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where its configuration is."""
    parser.add_argument("--config", type=Path, required=True, help="its router.yaml")
    add_log_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run it; `ready URL` on standard output once it serves."""
    return daemon.main(args.config, args.log_level, args.log_format)
