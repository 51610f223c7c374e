"""A real router whose endpoints are full, fail or die: who waits, who is served, who is refused."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from isochrone.router.admission.gate import Gate


class Counter:
    """An endpoint's behaviour: at most `slots` at once, 503 beyond; each answer when it is told."""

    def __init__(self, endpoint, slots: int = 1) -> None:
        self.endpoint = endpoint
        self.slots = slots
        self.held: list[Any] = []
        endpoint.behave = self
        endpoint.slots = slots

    def __call__(self, exchange) -> None:
        if len(self.held) >= self.slots:
            exchange.respond(503, [(b"retry-after", b"1")], b"{}")
        else:
            self.held.append(exchange)

    def serve(self) -> None:
        self.endpoint.answer(self.held.pop(0))

    @property
    def priorities(self) -> list[int]:
        return [int(exchange.request.header(b"x-isochrone-priority")) for exchange in self.held]


def _waits(gate: Gate[Any], count: int) -> bool:
    return gate.waiting == count


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(3):
        while not condition():  # noqa: ASYNC110  # the condition is another's inner state
            await asyncio.sleep(0.002)


@pytest.fixture
async def tasks():
    async with asyncio.timeout(15), asyncio.TaskGroup() as group:
        yield group


async def test_a_burst_on_a_full_endpoint_waits_and_is_served(start_router, start_endpoint, tasks):
    edge = await start_endpoint("edge")
    counter = Counter(edge, slots=2)
    router = await start_router(edge)
    asked = [tasks.create_task(router.infer()) for _ in range(12)]
    while not all(task.done() for task in asked):
        await until(lambda: bool(counter.held) or all(task.done() for task in asked))
        if counter.held:
            counter.serve()
    assert [task.result()[0] for task in asked] == [200] * 12
    sample = router.router.registry.get_sample_value
    assert sample("isochrone_waited_seconds_count") >= 9
    assert sample("isochrone_queue_length") == 0
    assert router.router.core.ledger.site("edge").out is None


async def test_the_line_is_bounded_and_says_when_to_come_back(start_router, start_endpoint, tasks):
    edge = await start_endpoint("edge")
    counter = Counter(edge)
    router = await start_router(edge, queue={"capacity": 2})
    asked = [tasks.create_task(router.infer()) for _ in range(3)]
    await until(lambda: router.router.core.dispatcher.gate.waiting == 2)
    status, body, fields = await router.infer()
    assert (status, body["code"]) == (503, "overloaded")
    assert int(fields["retry-after"]) >= 1
    sample = router.router.registry.get_sample_value
    assert sample("isochrone_shed_total", {"code": "overloaded", "priority": "5"}) == 1
    assert sample("isochrone_queue_length") == 2
    for _ in asked:
        await until(lambda: bool(counter.held))
        counter.serve()
        await asyncio.sleep(0)
    await until(lambda: all(task.done() for task in asked))
    assert [task.result()[0] for task in asked] == [200] * 3


async def test_who_is_more_urgent_is_served_first(start_router, start_endpoint, tasks):
    edge = await start_endpoint("edge")
    counter = Counter(edge)
    router = await start_router(edge)
    tasks.create_task(router.infer())
    await until(lambda: len(counter.held) == 1)
    waiting = router.router.core.dispatcher.gate
    for count, priority in enumerate([5, 9, 1, 5, 3], 1):
        tasks.create_task(router.infer(x_isochrone_priority=str(priority)))
        await until(partial(_waits, waiting, count))
    order = []
    for _ in range(5):
        counter.serve()
        await until(lambda: len(counter.held) == 1)
        order += counter.priorities
    counter.serve()
    assert order == [1, 3, 5, 5, 9]


async def test_what_expires_in_line_is_told_so_and_never_starts(
    start_router, start_endpoint, tasks
):
    edge = await start_endpoint("edge")
    counter = Counter(edge)
    router = await start_router(edge)
    tasks.create_task(router.infer())
    await until(lambda: len(counter.held) == 1)
    status, body, _ = await router.infer(x_request_timeout_seconds="1")
    assert (status, body["code"]) == (504, "deadline_exceeded")
    counter.serve()
    assert counter.held == []


async def test_a_client_that_leaves_the_line_frees_its_place(start_router, start_endpoint, tasks):
    edge = await start_endpoint("edge")
    counter = Counter(edge)
    router = await start_router(edge)
    tasks.create_task(router.infer())
    await until(lambda: len(counter.held) == 1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await router.infer()
    await until(lambda: router.router.core.dispatcher.gate.waiting == 0)
    counter.serve()


async def test_a_quota_says_exactly_when_to_come_back(start_router, start_endpoint):
    edge = await start_endpoint("edge")
    router = await start_router(edge)
    answers = [await router.infer(x_api_key="small-key") for _ in range(3)]
    assert [status for status, _, _ in answers] == [200, 200, 429]
    assert answers[-1][1]["code"] == "quota_exceeded"
    assert answers[-1][2]["retry-after"] == "10"
    assert len(edge.asked) == 2
    assert (await router.infer())[0] == 200, "others have their own, or none"


async def test_being_placed_costs_of_the_quota_too(start_router, start_endpoint):
    router = await start_router(await start_endpoint("edge"))
    asked = {"model": "digits"}
    answers = [
        await router.call("POST", "/isochrone/place", asked, x_api_key="small-key")
        for _ in range(3)
    ]
    assert [status for status, _, _ in answers] == [200, 200, 429]
    assert answers[-1][2]["retry-after"] == "10"
    assert (await router.infer(x_api_key="small-key"))[0] == 429, "it is one quota"


async def test_a_burst_of_4xx_from_many_clients_opens_nothing(start_router, start_endpoint):
    edge = await start_endpoint("edge")
    statuses = iter([400, 401, 403, 409, 413, 422] * 10)
    edge.behave = lambda exchange: exchange.respond(next(statuses), [], b"no")
    router = await start_router(edge)
    answers = await asyncio.gather(*(router.infer() for _ in range(50)))
    assert all(400 <= status < 500 for status, _, _ in answers)
    edge.behave = edge.answer
    assert [(await router.infer())[0] for _ in range(10)] == [200] * 10


def crash(exchange) -> None:
    exchange.abort()


async def test_what_may_not_be_repeated_is_not_unless_it_has_a_key(start_router, start_endpoint):
    one, other = await start_endpoint("one"), await start_endpoint("other")
    router = await start_router(one, other, models={"digits": {"repeatable": False}})
    one.behave = other.behave = crash
    status, body, _ = await router.infer()
    assert (status, body["code"]) == (502, "unusable_answer")
    assert len(one.asked) + len(other.asked) == 1
    crashed = one if one.asked else other
    good = other if one.asked else one
    good.behave = good.answer
    slower = router.router.core.ledger.site(good.name).holdings["digits", "1"]
    slower.served(0.0, 0.5, 0, 0.0)
    before = len(crashed.asked)
    status, _, fields = await router.infer(idempotency_key="charge-7")
    assert status == 200
    if len(crashed.asked) > before:  # it was asked first
        assert fields["x-isochrone-attempts"] == "2"
    tried = [asked for endpoint in (one, other) for asked in endpoint.asked[-1:]]
    keys = [asked.get(b"idempotency-key") for asked in tried]
    assert keys.count(b"charge-7") == int(fields["x-isochrone-attempts"])


async def test_poison_is_not_passed_around(start_router, start_endpoint):
    three = [await start_endpoint(name) for name in ("one", "two", "three")]
    for endpoint in three:
        endpoint.behave = crash
    router = await start_router(*three)
    status, body, _ = await router.infer()
    assert (status, body["code"]) == (502, "poison")
    assert sum(bool(endpoint.asked) for endpoint in three) == 2


async def test_what_cannot_make_its_deadline_is_refused_at_once(start_router, start_endpoint):
    edge = await start_endpoint("edge")
    router = await start_router(edge)
    slow = router.router.core.ledger.site("edge").holdings["digits", "1"]
    for _ in range(20):
        slow.served(0.0, 2.0, 0, 0.0)
    status, body, fields = await router.infer(x_request_timeout_seconds="0.5")
    assert (status, body["code"]) == (504, "deadline_exceeded")
    assert "retry-after" not in fields, "it would be as late then"
    assert edge.asked == []


async def test_decisions_are_explained_when_asked_or_always(start_router, start_endpoint):
    edge, us = await start_endpoint("edge"), await start_endpoint("us", "us-east")
    router = await start_router(edge, us)
    _, _, fields = await router.infer(x_request_id="brief", x_api_key="acme-key")
    assert "x-isochrone-explain" not in fields
    told = router.router.decisions.tell("brief")
    assert [c["endpoint"] for c in told["considered"]] == ["edge"]
    assert sum(told["not_considered"].values()) == 1
    always = await start_router(edge, us, decisions={"explain": "always"})
    _, _, fields = await always.infer(x_request_id="long", x_api_key="acme-key")
    told = always.router.decisions.tell("long")
    assert [(c["endpoint"], c["reason"] is None) for c in told["considered"]] == [
        ("edge", True),
        ("us", False),
    ]
    assert "x-isochrone-explain" not in fields, "in the record, not in every answer"


async def test_predictions_are_held_against_what_was_observed(start_router, start_endpoint):
    edge = await start_endpoint("edge")
    router = await start_router(edge)
    for _ in range(5):
        await router.infer()
    sample = router.router.registry.get_sample_value
    for term in ("total", "net", "wait", "service"):
        name = "isochrone_prediction_error_seconds_count"
        assert sample(name, {"term": term}) == 5
    assert sample("isochrone_retry_budget_left") > 0
