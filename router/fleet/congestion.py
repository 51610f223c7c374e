"""What a slot costs, and how long the wait for one is: the arithmetic of queues.

Two answers to two questions. `turns_ahead` says what will happen: the requests beyond the slots go
first, one turn of all slots after the other. `price` says where to send: it is convex, because with
a linear wait every router sends to the same endpoint until it has collapsed.
"""

import math
from functools import lru_cache

FREE_LOAD = 0.3
POWER = 1.5
STEEPEST = 1.25
"""The price begins above `FREE_LOAD`, grows with this power of what is more, and, once one more
request for each slot would cost so many turns, as a straight line.
"""


def turns_ahead(in_flight: int, slots: int) -> float:
    """How many turns a request waits that is sent now: (in-flight + 1 - slots) / slots, or none.

    It is the mean wait of an M/M/c queue at whose arrival so many are there.
    """
    return max(0, in_flight + 1 - slots) / slots


def price(expected: float, slots: int) -> float:
    """Turns that one more request costs beside those expected: convex in the load, 0 at no load.

    It begins before every slot is taken, because others' requests are under way to the same slots,
    and because who takes the last one delays the next. C3 (Suresh et al., NSDI 2015) prices with
    the cube of the queue. Ours is what had the shortest tail in simulation: a steady load wants it
    steep, but in a burst everybody is in a long queue, and none of them should be fled at any cost.
    """
    over = (expected + 1) / slots - FREE_LOAD
    return 0.0 if over <= 0 else _convex(over) - _idle_price(slots)


_BEND = math.pow(STEEPEST / POWER, 1 / (POWER - 1))
_BEND_PRICE = math.pow(_BEND, POWER)


def _convex(over: float) -> float:
    if over < _BEND:
        return math.pow(over, POWER)
    return _BEND_PRICE + STEEPEST * (over - _BEND)


@lru_cache(maxsize=1024)
def _idle_price(slots: int) -> float:
    """What the sum above would be with nobody there: few slots are no reason to go elsewhere."""
    return _convex(max(0.0, 1 / slots - FREE_LOAD))
