"""What to expect of an endpoint that was never measured: what its like have shown.

Kept for each (model, hardware class), with a mean over all classes of the model behind it. So a new
endpoint never looks infinitely fast.
"""

from isochrone.router.fleet.latency import Ewma

SERVICE_S = 0.02
LOAD_S = 1.0
_MOST_KEPT = 4096


class Priors:
    """Seconds of service and of loading, by model and hardware class; bounded."""

    def __init__(self) -> None:
        self._service: dict[tuple[str, str], Ewma] = {}
        self._load: dict[tuple[str, str], Ewma] = {}

    def service_s(self, model: str, hardware_class: str) -> float:
        """One request alone in a slot."""
        return _expected(self._service, model, hardware_class, SERVICE_S)

    def load_s(self, model: str, hardware_class: str) -> float:
        """A cold start from disk."""
        return _expected(self._load, model, hardware_class, LOAD_S)

    def served(self, model: str, hardware_class: str, service_s: float, now_s: float) -> None:
        """An endpoint's estimate of late."""
        _learn(self._service, model, hardware_class, service_s, now_s)

    def loaded(self, model: str, hardware_class: str, load_s: float, now_s: float) -> None:
        """A load was measured."""
        _learn(self._load, model, hardware_class, load_s, now_s)


def _expected(
    kept: dict[tuple[str, str], Ewma], model: str, hardware_class: str, default: float
) -> float:
    found = kept.get((model, hardware_class)) or kept.get((model, ""))
    return found.value if found is not None else default


def _learn(
    kept: dict[tuple[str, str], Ewma],
    model: str,
    hardware_class: str,
    seconds: float,
    now_s: float,
) -> None:
    for key in ((model, hardware_class), (model, "")):
        if key not in kept:
            if len(kept) >= _MOST_KEPT:
                kept.pop(next(iter(kept)))
            kept[key] = Ewma(seconds, tau_s=60.0)
        kept[key].observe(seconds, now_s)
