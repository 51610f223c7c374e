"""Everything about artefacts, joined once from the configuration of an agent."""

from pathlib import Path
from random import Random

from isochrone.edge_agent.artefacts.activation import Activations
from isochrone.edge_agent.artefacts.disk import Disk
from isochrone.edge_agent.artefacts.parts import Trust, source_of
from isochrone.edge_agent.artefacts.pull import Bringing
from isochrone.edge_agent.artefacts.pulls import Pulls
from isochrone.edge_agent.artefacts.repository import Heard, Repository
from isochrone.edge_agent.artefacts.room import Room
from isochrone.edge_agent.artefacts.settings import ArtefactsConfig
from isochrone.edge_agent.artefacts.store import Store
from isochrone.edge_agent.runtime.residence.pool import Pool


def repository(
    root: Path,
    config: ArtefactsConfig,
    pool: Pool,
    activations: Activations,
    trust: Trust | None,
    rng: Random,
    heard: Heard,
) -> Repository:
    """The repository of the packages below `root`; `heard` is told of every change."""
    store, disk = Store(root), Disk()
    made = Repository(pool, store, disk, activations, heard, trust)
    if config.source is not None:
        room = Room(store, disk, made, config.disk_budget_bytes, config.disk_reserve_bytes)
        made.pull_with(
            Pulls(
                Bringing(store, disk, room, trust),
                lambda: source_of(config),
                made.arrived,
                made.spawn,
                rng,
                timeout_s=config.pull_timeout_s,
            )
        )
    return made
