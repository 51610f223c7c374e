"""Parts that are due at intervals, and one that fails."""

import logging

from isochrone.router.process.housekeeping import AGAIN_S, SAID_S, Housekeeping


def test_each_part_runs_by_its_own_interval():
    ran = []
    parts = Housekeeping()
    parts.add("often", lambda now_s: ran.append(("often", now_s)))
    parts.add("rarely", lambda now_s: ran.append(("rarely", now_s)), every_s=1.0)
    for now_s in (0.0, 0.5, 1.0):
        parts.run(now_s)
    assert ran == [
        ("often", 0.0),
        ("rarely", 0.0),
        ("often", 0.5),
        ("often", 1.0),
        ("rarely", 1.0),
    ]


def test_a_part_that_fails_stops_no_other_and_is_told_until_it_works(caplog):
    caplog.set_level(logging.WARNING)
    broken = True
    ran: list[float] = []

    def first(now_s):
        if broken:
            raise KeyError(now_s)

    parts = Housekeeping()
    parts.add("first", first)
    parts.add("second", ran.append)
    times = [0.0, 0.1, AGAIN_S, 2 * AGAIN_S]
    for now_s in times:
        parts.run(now_s)
    assert ran == times
    assert parts.failing == {"first": "KeyError"}
    assert parts.failures == {"first": 3}
    assert [record.message.split(" failed")[0] for record in caplog.records] == ["first"]
    parts.run(SAID_S)
    assert len(caplog.records) == 2
    broken = False
    parts.run(SAID_S + AGAIN_S)
    assert parts.failing == {}
    assert caplog.records[-1].message == "first works again"
