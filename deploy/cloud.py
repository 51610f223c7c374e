"""`isochrone cloud`: one region's Ray Serve application, for real deployments."""

import argparse
from pathlib import Path

from isochrone.cloud import app
from isochrone.cloud.serve_file import write_serve_file

HELP = "run one region's Ray Serve application until SIGTERM"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where its configuration is."""
    parser.add_argument("--config", type=Path, required=True, help="its cloud.yaml")
    parser.add_argument(
        "--serve-config",
        type=Path,
        metavar="FILE",
        help="run nothing: write what `serve deploy FILE` takes on a cluster that runs already",
    )


def run(args: argparse.Namespace) -> int:
    """Run it; `ready URL` on standard output once it serves."""
    if args.serve_config is not None:
        write_serve_file(args.config, args.serve_config)
        return 0
    return app.main(args.config)
