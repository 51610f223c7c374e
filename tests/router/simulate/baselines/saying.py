"""Short ways to say what a rule is told, for tests."""

from random import Random

from isochrone.router.simulate.algorithm import Call, Reply, Site


class Fixed(Random):
    """Chance that always comes out the same, for transcripts."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__(0)
        self._value = value

    def random(self) -> float:
        return self._value


def site(name: str, *, slots: int = 2, prior_rtt_s: float = 0.05) -> Site:
    return Site(name, f"in-{name}", slots, "edge", prior_rtt_s, 1.0)


def call(number: int = 1, *, work: float = 1.0) -> Call:
    return Call(number, "m", "eu", "t", None, 5, 1000, work, 0.0, 10.0)


def reply(
    latency_s: float,
    *,
    wait_s: float = 0.0,
    infer_s: float = 0.0,
    in_flight: int = 0,
    slots: int = 2,
    recent_s: float = 0.1,
) -> Reply:
    return Reply(latency_s, wait_s, infer_s, in_flight, slots, recent_s)
