"""A model on a simulated endpoint: cold, loading or warm, and for how long the machine held it."""

import math
from collections.abc import Callable

from isochrone.router.simulate.engine import Engine
from isochrone.router.wire.report import ModelState

_LOOK_S = 1.0
"""How often an agent looks whether an idle model may go."""


class Warmth:
    """Loads once however many ask, and falls cold `keep_alive_s` after its last use.

    Samples are no use: they keep it only while they run. `warmed` is called when a load is done,
    `is_idle` says that nothing runs or waits. Loading and warm time is `held_s`, counted up to
    `horizon_s`.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        load_s: float,
        keep_alive_s: float | None,
        horizon_s: float,
        is_idle: Callable[[], bool],
        warmed: Callable[[], None],
    ) -> None:
        self.state = ModelState.COLD
        self.generation = 0
        """Grows with every change of the state."""
        self.warm_at_s = math.inf
        self.measured_load_s: float | None = None
        self.loads = 0
        self._engine = engine
        self._load_s = load_s
        self._keep_alive_s = keep_alive_s
        self._horizon_s = horizon_s
        self._is_idle = is_idle
        self._warmed = warmed
        self._held_s = 0.0
        self._since_s: float | None = None
        self._uses = 0

    @property
    def is_warm(self) -> bool:
        """It answers without a load."""
        return self.state is ModelState.WARM

    @property
    def due_s(self) -> float:
        """How long until it is warm, if it were asked for now."""
        if self.is_warm:
            return 0.0
        if self.state is ModelState.COLD:
            return self._load_s
        return max(0.0, self.warm_at_s - self._engine.now_s)

    @property
    def held_s(self) -> float:
        """Seconds for which the machine has held the model, loading or warm."""
        return self._held_s + self._holding_s()

    def begin_warm(self) -> None:
        """It has been loaded before anybody looked."""
        self._turn(ModelState.WARM)
        self.rest()

    def load(self) -> None:
        """Have it warm soon; nothing where it is, or is being loaded."""
        if self.state is ModelState.COLD:
            self.loads += 1
            self._turn(ModelState.LOADING)
            self.warm_at_s = self._engine.now_s + self._load_s
            self._engine.at(self.warm_at_s, self._loaded, self.generation)

    def unload(self) -> None:
        """Cold from now on."""
        if self.state is not ModelState.COLD:
            self._turn(ModelState.COLD)
            self.warm_at_s = math.inf

    def delay(self, seconds: float) -> None:
        """A load under way stands still for so long."""
        self.warm_at_s += seconds

    def rest(self) -> None:
        """Nothing runs any more: unless it is used again it will fall cold."""
        self._uses += 1
        if self._keep_alive_s is not None and self.is_warm:
            self._engine.after(self._keep_alive_s, self._cool, self._uses)

    def use(self) -> None:
        """It is needed: whatever rest there was is over."""
        self._uses += 1

    def _loaded(self, generation: int) -> None:
        if generation != self.generation:
            return
        if self.warm_at_s > self._engine.now_s:  # it stood still in between
            if self.warm_at_s < math.inf:
                self._engine.at(self.warm_at_s, self._loaded, generation)
            return
        self.measured_load_s = self._load_s
        self._turn(ModelState.WARM)
        self._warmed()
        if self._is_idle():
            self.rest()

    def _cool(self, uses: int) -> None:
        if uses != self._uses:
            return
        if self._is_idle():
            self.unload()
        else:
            self._engine.after(_LOOK_S, self._cool, uses)

    def _turn(self, state: ModelState) -> None:
        self._held_s += self._holding_s()
        self._since_s = None if state is ModelState.COLD else self._engine.now_s
        self.state = state
        self.generation += 1

    def _holding_s(self) -> float:
        if self._since_s is None:
            return 0.0
        return max(0.0, min(self._engine.now_s, self._horizon_s) - self._since_s)
