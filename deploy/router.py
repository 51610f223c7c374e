"""`isochrone router`: one router, for real deployments."""

import argparse
from pathlib import Path

from router import app

HELP = "run one router until SIGTERM"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where its configuration is."""
    parser.add_argument("--config", type=Path, required=True, help="its router.yaml")


def run(args: argparse.Namespace) -> int:
    """Run it; `ready URL` on standard output once it serves."""
    return app.main(args.config)
