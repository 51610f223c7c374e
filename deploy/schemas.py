"""The JSON Schemas beside the shipped configuration, made from the structs that read it.

`python -m isochrone.deploy.schemas` writes them and the tables of keys in the manuals. Editors use
them to complete and to check.
"""

from pathlib import Path
from typing import Any

import msgspec

from isochrone.cloud.config import CloudConfig
from isochrone.deploy import knobs
from isochrone.edge_agent.config import AgentConfig
from isochrone.router.config import RouterConfig
from isochrone.router.law.region_file import RegionFile
from isochrone.router.process.settings import schema
from isochrone.router.simulate.scenario import Scenario

KINDS: dict[str, type[Any]] = {
    "agent": AgentConfig,
    "cloud": CloudConfig,
    "regions": RegionFile,
    "router": RouterConfig,
    "scenario": Scenario,
}
"""Name of a schema, which is that of the shipped file without `.yaml` (`scenario` is for each of
`configs/scenarios`), and what such a file is read into."""

FOLDER = Path(__file__).parents[1] / "configs" / "schema"


def rendered(name: str) -> bytes:
    """The schema file of one kind of configuration."""
    made = schema(KINDS[name], f"Isochrone: {name}.yaml")
    return msgspec.json.format(msgspec.json.encode(made, order="sorted"), indent=2) + b"\n"


def main(folder: Path = FOLDER) -> None:
    """Write every schema into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in KINDS:
        (folder / f"{name}.schema.json").write_bytes(rendered(name))


if __name__ == "__main__":
    main()
    knobs.main()
