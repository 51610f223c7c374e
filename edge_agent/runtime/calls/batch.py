"""When calls share a run: by what it costs and saves, never because they happen to be there.

A run of n rows takes about a·n + b. What counts is the sum of all delays: one more member makes
those of the batch wait for its rows, a, and spares itself, and everybody behind, a run's base b.
Both are read off what runs of so many rows have taken (`Cost`), line or not. The fit
and the idea of waiting only while it pays are those of Clipper (Crankshaw et al., NSDI 2017) and of
BentoML's dispatcher; the two conditions below are worked out from the sum of delays.
"""

from isochrone.edge_agent.runtime.calls.cost import Cost

_MOST_TIMES = 4.0
"""So many times what a run alone takes may a batch take: whoever is urgent waits behind it."""
_LEAST_PAUSE_S = 2e-3
"""Timers of event loops count in milliseconds."""


def pays(cost: Cost, members: int, rows: int, more_rows: int, behind: int) -> bool:
    """A batch of so many members and rows gains by one more, when so many wait behind it.

    Of a cost that nobody knows yet, it is worth a trial.
    """
    together_s, alone_s = cost.predict_s(rows + more_rows), cost.predict_s(more_rows)
    if together_s > _MOST_TIMES * cost.predict_s(max(1, rows // members)):
        return False
    longer_s = together_s - cost.predict_s(rows)
    return members * longer_s <= (alone_s - longer_s) * (1 + behind)


def pause_s(cost: Cost, members: int, rows: int, gap_s: float) -> float:
    """How long a batch on an idle device may wait for one more; 0 where that does not pay.

    Each of its members has so many rows, and so may the next. `gap_s` is the mean time between two
    arrivals. Starting now, the next comes during the run, waits for it and runs alone. Waiting t
    for it instead costs everybody t, and the members its rows; it spares a base: what is gained is
    b − (members + 1)·t − members·a. A pause shorter than a timer can tell is none.
    """
    alone_s = cost.predict_s(rows)
    if max(gap_s, _LEAST_PAUSE_S) * (members + 1) >= alone_s:  # no batch spares more than a run
        return 0.0
    longer_s = cost.predict_s((members + 1) * rows) - cost.predict_s(members * rows)
    most_s = (alone_s - longer_s - members * longer_s) / (members + 1)
    return most_s if gap_s < most_s and most_s >= _LEAST_PAUSE_S else 0.0
