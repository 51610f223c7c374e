"""`isochrone cloud`: one region's Ray Serve application, for real deployments."""

import argparse
from pathlib import Path

from cloud import app

HELP = "run one region's Ray Serve application until SIGTERM"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where its configuration is."""
    parser.add_argument("--config", type=Path, required=True, help="its cloud.yaml")


def run(args: argparse.Namespace) -> int:
    """Run it; `ready URL` on standard output once it serves."""
    return app.main(args.config)
