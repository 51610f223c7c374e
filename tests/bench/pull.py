"""What pulling a package costs, against reading, digesting and writing the same file in one run.

`python tests/bench/pull.py --mib 100`: everything on loopback and one disk.
"""

import argparse
import asyncio
import hashlib
import os
import tempfile
import time
from pathlib import Path

from isochrone.edge_agent.artefacts.settings import (
    ArtefactsConfig,
    FromDirectory,
    FromHttp,
    SourceConfig,
)
from isochrone.edge_agent.runtime.package.package import Package
from tests.edge_agent.artefacts.conftest import pulling, write_weights
from tests.edge_agent.artefacts.shop import open_shop


def bare_s(source: Path, target: Path) -> float:
    """Seconds to read, digest, write and sync a file, in one thread."""
    began_s = time.perf_counter()
    digest = hashlib.sha256()
    with source.open("rb") as read, target.open("wb") as write:
        while chunk := read.read(1 << 20):
            digest.update(chunk)
            write.write(chunk)
        write.flush()
        os.fsync(write.fileno())
    return time.perf_counter() - began_s


async def pull_s(package: Package, root: Path, source: SourceConfig) -> float:
    """Seconds to have the package in an empty store."""
    config = ArtefactsConfig(source=source, disk_reserve_bytes=0)
    async with pulling(root, config) as here:
        began_s = time.perf_counter()
        await here.pull(package)
        return time.perf_counter() - began_s


async def main(folder: Path, mib: int) -> None:
    """Measure and print."""
    package = write_weights(folder / "remote", sizes=(mib << 20,))
    once_s = bare_s(package.path / "a.onnx", folder / "warm-the-cache")
    once_s = min(once_s, bare_s(package.path / "a.onnx", folder / "bare"))
    print(f"bare: {once_s:.3f} s for {mib} MiB")
    async with open_shop(folder / "remote") as shop:
        sources: dict[str, SourceConfig] = {
            "directory": FromDirectory(path=folder / "remote"),
            "http": FromHttp(url=shop.url),
        }
        for name, source in sources.items():
            seconds = await pull_s(package, folder / name, source)
            print(f"{name}: {seconds:.3f} s, {seconds / once_s:.2f} x bare")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=100)
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(main(Path(place), parser.parse_args().mib))
