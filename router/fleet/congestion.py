"""What a slot costs, and how long the wait for one is: the arithmetic of queues.

Two answers to two questions. `turns_ahead` says what will happen: the requests beyond the slots go
first, one turn of all slots after the other. `price` says where to send: it is convex, because with
a linear wait every router sends to the same endpoint until it has collapsed.
"""

HERD = 8
"""With this many independent routers, what one of them has sent unseen is counted twice."""


def turns_ahead(in_flight: int, slots: int) -> float:
    """How many turns a request waits that is sent now: (in-flight + 1 - slots) / slots, or none.

    It is the mean wait of an M/M/c queue at whose arrival so many are there.
    """
    return max(0, in_flight + 1 - slots) / slots


def others_share(views: int) -> float:
    """How much the other routers have sent unseen, for each one of ours: 0 alone, 1 in a herd."""
    return min(1.0, (views - 1) / (HERD - 1))


def load_of(in_flight: int, unseen: int, views: int, slots: int) -> float:
    """Requests for each slot, with one more, and with what others may have sent unseen."""
    return (in_flight + others_share(views) * unseen + 1) / slots


def price(load: float) -> float:
    """Turns that a slot is worth: none while one is free, then the square of the load.

    The convex cost of C3 (Suresh et al., NSDI 2015), with 2 instead of 3 for a power.
    """
    return load * load if load > 1 else 0.0
