"""A process that pulls one package and is killed while it does: ROOT URL NAME VERSION DIGEST."""

import asyncio
import sys
from pathlib import Path

from isochrone.edge_agent.artefacts.pull import Wish
from isochrone.edge_agent.artefacts.settings import ArtefactsConfig, FromHttp
from tests.edge_agent.artefacts.conftest import pulling


async def main(root, url, name, version, digest):
    config = ArtefactsConfig(source=FromHttp(url=url), disk_reserve_bytes=0)
    async with pulling(Path(root), config) as here:
        print("begun", flush=True)
        pull = here.pulls.begin(Wish(name, version, digest))
        await pull.ended.wait()
        print(pull.error or "come", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
