"""`isochrone agent`: one edge agent, for real deployments."""

import argparse
from pathlib import Path

from edge_agent import app

HELP = "run one edge agent until SIGTERM"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where its configuration is."""
    parser.add_argument("--config", type=Path, required=True, help="its agent.yaml")


def run(args: argparse.Namespace) -> int:
    """Run it; `ready URL` on standard output once it serves."""
    return app.main(args.config)
