"""What all models of a pool share, and what they say of themselves."""

from collections.abc import Callable
from dataclasses import dataclass

from isochrone.edge_agent.runtime.loading.load import Tools
from isochrone.edge_agent.runtime.loading.loader import Loader
from isochrone.edge_agent.runtime.loading.loads import Loads
from isochrone.edge_agent.runtime.memory.residents import Residents
from isochrone.edge_agent.runtime.package.package import Package
from isochrone.edge_agent.runtime.package.state import Step
from isochrone.edge_agent.runtime.residence.upkeep import Upkeep
from isochrone.router.wire.report import ModelState


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Seconds that a model took from cold to warm: behind other loads, its weights, its warm-up."""

    wait_s: float
    read_s: float
    warm_up_s: float

    @property
    def load_s(self) -> float:
        """Without the wait: what the next load will take."""
        return self.read_s + self.warm_up_s


@dataclass(frozen=True, slots=True)
class ModelMoved:
    """A model's state changed by a step.

    `cold_start` and `variant` when it became warm, `error` when it could not or crashed; `cause`
    when its memory is to be given back: asked, evicted or idle.
    """

    name: str
    version: str
    state: ModelState
    step: Step
    cold_start: ColdStart | None = None
    error: str | None = None
    cause: str | None = None
    variant: str | None = None


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every model of a pool shares.

    A thread that loads one after another, what loading needs, who is in memory, what waits to be
    loaded, and who hears of it; `kept` says of a version whether it has to stay in memory,
    `poisoned` hears of every request of one that is not asked again.
    """

    loader: Loader
    tools: Tools
    residents: Residents
    loads: Loads
    upkeep: Upkeep
    kept: Callable[[Package], bool]
    moved: Callable[[ModelMoved], None]
    poisoned: Callable[[Package], None]
