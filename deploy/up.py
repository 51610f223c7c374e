"""`isochrone up`: a whole system on this machine until Ctrl-C, with lines to try."""

import argparse
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from isochrone.deploy.demo.command import add_cache_argument, progress
from isochrone.deploy.demo.models import IMAGE, DemoModels, prepare
from isochrone.deploy.local.layout import EDGE_MODEL, EU_ONLY, ROUTERS, Layout, check_free
from isochrone.deploy.local.ports import port
from isochrone.deploy.local.run import Folder, local_system, run_folder, run_to_end
from isochrone.deploy.local.system import System
from isochrone.deploy.logs import add_log_arguments, log_settings
from isochrone.router.process.output import say

HELP = "start a whole system on this machine and keep it until Ctrl-C"
_DIGIT_JSON = "digit.json"
_DIGIT_PNG = "digit.png"
_KEY = "eu-only.key"
_PNG_PIXELS = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which ports."""
    parser.add_argument(
        "--router-port", type=port, default=8080, help="the first router's (%(default)s; 0: any)"
    )
    parser.add_argument(
        "--admin-port", type=port, default=8081, help="its administration's (%(default)s; 0: any)"
    )
    add_cache_argument(parser)
    add_log_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run until Ctrl-C; 1 where a part ends by itself."""
    check_free(args.router_port, args.admin_port)
    models = prepare(args.cache.expanduser(), progress)
    with run_folder() as folder, contextlib.suppress(KeyboardInterrupt):
        return run_to_end(_serve(args, folder, models))
    return 0


async def _serve(args: argparse.Namespace, folder: Folder, models: DemoModels) -> int:
    packages = models.packages[EDGE_MODEL].parents[1]
    async with local_system(
        folder,
        packages,
        progress,
        log=log_settings(args),
        router_port=args.router_port,
        admin_port=args.admin_port,
    ) as system:
        _write_samples(folder.path, models, system.layout)
        for line in told(system):
            say(line)
        ended = await system.watch()
        progress(ended.told(f"{ended.name} ended with {ended.code}"))
        folder.kept = True
    return 1


def _write_samples(folder: Path, models: DemoModels, layout: Layout) -> None:
    """A held-out digit as a request and as a picture, and the key of the tenant bound to the EU."""
    image = models.held_out.images[0]
    tensor = {
        "name": IMAGE.name,
        "datatype": IMAGE.datatype,
        "shape": [1, *image.shape],
        "data": image.ravel().tolist(),
    }
    (folder / _DIGIT_JSON).write_text(json.dumps({"inputs": [tensor]}))
    grey = Image.fromarray((image.squeeze() * 255).astype(np.uint8))
    size = (_PNG_PIXELS, _PNG_PIXELS)
    grey.resize(size, Image.Resampling.NEAREST).save(folder / _DIGIT_PNG)
    (folder / _KEY).write_text(layout.key)


def told(system: System) -> Iterator[str]:
    """What a newcomer may try now; every line works as it stands."""
    layout = system.layout
    first, *others = ROUTERS
    url, admin = layout.router_url(first), layout.admin_url(first)
    infer = f"{url}/v2/models/{EDGE_MODEL}/infer"
    body = f"-H 'content-type: application/json' -d @{layout.folder / _DIGIT_JSON}"
    key = f'-H "authorization: Bearer $(cat {layout.folder / _KEY})"'
    place = json.dumps({"model": EDGE_MODEL, "client": "198.51.100.7"})
    yield f"ready {url}"
    yield f"administration of router {first}: {admin}"
    for other in others:
        yield f"router {other}: {layout.router_url(other)}"
        yield f"administration of router {other}: {layout.admin_url(other)}"
    yield ""
    yield "# a handwritten digit, as JSON; who answered and why is in the header"
    yield f"curl -si {infer} -H 'x-request-id: first' {body}"
    yield "# why there"
    yield f"isochrone explain first --admin {admin}"
    yield "# the same digit as a picture"
    yield f"isochrone infer {EDGE_MODEL} --image {layout.folder / _DIGIT_PNG} --router {url}"
    yield f"# tenant {EU_ONLY}: its data never leaves the EU"
    yield f"curl -si {infer} {key} {body}"
    yield "# where a client in America had best go"
    yield f"curl -s {url}/isochrone/place -d '{place}'"
    yield "# the fleet as this router sees it; all of it is on this machine, so distances and the"
    yield "# times of agents are staged (relays that delay, min_service_s), and marked as such"
    yield f"isochrone status --admin {admin}"
