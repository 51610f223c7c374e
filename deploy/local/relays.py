"""Many relays in one process: `python -m isochrone.deploy.local.relays --config FILE`."""

import argparse
import asyncio
import contextlib
import signal
import sys
from pathlib import Path
from typing import TextIO

import msgspec

from isochrone.deploy.local.relay import Passage, Relay, RelaySpec
from isochrone.router.process.output import say
from isochrone.router.process.run import keep_on_hangup
from isochrone.router.process.settings import Settings, load_settings

_PROGRAM = "python -m isochrone.deploy.local.relays"


class RelayFile(Settings, frozen=True):
    """The relays of one process, and the file that takes one JSON line per request."""

    log: Path
    relays: tuple[RelaySpec, ...]


async def run_relays(file: RelayFile, log: TextIO) -> None:
    """Run relays until SIGTERM or SIGINT; prints `ready` when all listen."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def seen(passage: Passage) -> None:
        log.write(msgspec.json.encode(passage).decode() + "\n")

    async with contextlib.AsyncExitStack() as stack:
        for spec in file.relays:
            await stack.enter_async_context(Relay(spec, seen))
        say(f"ready {len(file.relays)} relays")
        await stop.wait()


def main(arguments: list[str]) -> int:
    """Run the relays of one file."""
    keep_on_hangup()
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="YAML: log, relays")
    file = load_settings(parser.parse_args(arguments).config, RelayFile)
    with file.log.open("a", buffering=1) as log:
        asyncio.run(run_relays(file, log))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
