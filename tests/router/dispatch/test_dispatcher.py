"""The way of a request from query to end, in virtual time: no socket, no loop, no sleep."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from router.admission.gate import Gate
from router.admission.quota import Quotas
from router.dispatch.budget import HedgeBudget, RetryBudget
from router.dispatch.chooser import Chooser
from router.dispatch.dispatcher import Dispatcher, Effects
from router.dispatch.event import Cause, Chunk, End, Head, Lost
from router.dispatch.record import Record
from router.dispatch.runner import Runner
from router.dispatch.spare import Spare
from router.dispatch.turns import LOOKS_COUNT
from router.fleet.endpoint import Endpoint
from router.fleet.ledger import Ledger
from router.fleet.membership import Member, Membership
from router.policy.policy import Policy
from router.policy.query import Query
from router.policy.region_file import Rate
from router.wire.http import Request, first
from router.wire.problem import problem_answer
from router.wire.report import EndpointReport, HeldModel, Lease, ModelState

WARM = ModelState.WARM
REGIONS = {"eu": 0.01, "us": 0.08}


class Client:
    """An exchange that keeps what it was answered."""

    def __init__(self, *headers: tuple[bytes, bytes]) -> None:
        self.request = Request("POST", "/v2/models/digits/infer", list(headers), b"opaque")
        self.gone = False
        self.status: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self._gone: Callable[[], None] = lambda: None

    def respond(self, status, headers, body) -> None:
        assert self.status is None, "answered once"
        self.status, self.headers, self.body = status, headers, body

    def start(self, status, headers) -> None:
        self.respond(status, headers, b"")

    def write(self, chunk) -> None:
        self.body += chunk

    def finish(self) -> None:
        pass

    def abort(self) -> None:
        self.gone = True

    def watch(
        self,
        *,
        gone: Callable[[], None],
        pause: Callable[[], None] | None = None,
        resume: Callable[[], None] | None = None,
    ) -> None:
        del pause, resume
        self._gone = gone

    def round_trip_s(self) -> float | None:
        return None

    def leave(self) -> None:
        self.gone = True
        self._gone()

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])

    @property
    def retry_after_s(self) -> int:
        return int(first(self.headers, b"retry-after") or b"0")


class Sent:
    """One try, as an endpoint sees it: an `upstream.Call` that the test plays."""

    def __init__(self, to: str, request: Request, on_event) -> None:
        self.to = to
        self.request = request
        self._on_event = on_event
        self.over = False

    def cancel(self) -> None:
        self.over = True

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def answer(self, status: int = 200, **headers: str) -> None:
        if self.over:
            return
        fields = [(n.replace("_", "-").encode(), v.encode()) for n, v in headers.items()]
        self._on_event(Head(status, [(b"content-length", b"2"), *fields]))
        if not self.over:
            self._on_event(Chunk(b"ok"))
        if not self.over:
            self.over = True
            self._on_event(End())

    def begin(self) -> None:
        self._on_event(Head(200, []))
        self._on_event(Chunk(b"part"))

    def end(self) -> None:
        self.over = True
        self._on_event(End())

    def lose(self, cause: Cause = Cause.RESET) -> None:
        if not self.over:
            self.over = True
            self._on_event(Lost(cause, ""))


class World:
    """A dispatcher before endpoints that do what the test says; `slots` by endpoint and region."""

    def __init__(self, *, slots: int = 1, names=("eu.a",), state=WARM, **changes: Any) -> None:
        self.now_s = 100.0
        self.sent: list[Sent] = []
        self.ended: list[Record] = []
        self.wakes: list[str] = []
        self.slots = slots
        load_s = changes.pop("load_s", 0.5)
        held = tuple(HeldModel(name, "1", state, load_s=load_s) for name in ("digits", "alone"))
        endpoints = [Endpoint(name, f"http://{name}:1", name.split(".")[0]) for name in names]
        members = [Member(e, slots=slots, models=held) for e in endpoints]
        self.ledger = Ledger(REGIONS, "r1")
        self.ledger.follow(Membership(members, list(REGIONS), Lease()), self.now_s)
        self.report(held)
        self.spare = Spare(
            RetryBudget(changes.pop("retries", 1.0), 0.0),
            changes.pop("hedges", None),
            {"alone"},
        )
        self.ended_raises = self.refuse_raises = False
        self.chooser: Any = Chooser(Policy(), self.ledger, Random(1))
        self.runner = Runner(
            sender="r1",
            ledger=self.ledger,
            upstream=self._upstream,
            chooser=self.chooser,
            spare=self.spare,
            clock=lambda: self.now_s,
            most_tries=3,
        )
        self.dispatcher = Dispatcher(
            ledger=self.ledger,
            chooser=self.chooser,
            runner=self.runner,
            gate=Gate(changes.pop("capacity", 100)),
            quotas=Quotas(changes.pop("quotas", {})),
            effects=Effects(self._refuse, self._ended, self._wake),
            clock=lambda: self.now_s,
            in_flight=changes.pop("in_flight", 1000),
        )
        assert not changes
        self.count = 0

    def report(self, held) -> None:
        for site in self.ledger.sites():
            self.ledger.probe_sent(site, self.now_s)
            told = EndpointReport(
                wire_version=1,
                name=site.endpoint.name,
                region=site.endpoint.region,
                instance="i1",
                sequence=1,
                in_flight=0,
                slots=self.slots,
                ready=True,
                draining=False,
                models_generation=1,
                models=held,
            )
            self.ledger.probe_answered(site, told, REGIONS[site.endpoint.region], self.now_s)

    def _upstream(self, endpoint: Endpoint):
        world = self

        class Way:
            def send(self, request, on_event, **_):
                world.sent.append(Sent(endpoint.name, request, on_event))
                return world.sent[-1]

        return Way()

    def _ended(self, record: Record) -> None:
        self.ended.append(record)
        assert not self.ended_raises

    def _refuse(self, exchange, _request_id, error, _plan) -> int:
        assert not self.refuse_raises
        status, headers, body = problem_answer(error)
        exchange.respond(status, headers, body)
        return status

    def _wake(self, permit, _model, _version) -> None:
        self.wakes.append(permit.endpoint.name)

    def ask(self, timeout_s: float = 30.0, **changes: Any) -> Client:
        client = Client()
        self.count += 1
        asked = Query(f"q{self.count}", "digits", self.now_s, self.now_s + timeout_s)
        self.dispatcher.dispatch(client, replace(asked, **changes))
        return client

    def wait(self, seconds: float) -> None:
        """Time passes, in ticks."""
        for _ in range(round(seconds / 0.01)):
            self.now_s += 0.01
            self.dispatcher.sweep(self.now_s)

    def kill(self, name: str) -> None:
        site = self.ledger.site(name)
        assert site is not None
        for _ in range(2):
            self.ledger.probe_missed(site, self.now_s)

    @property
    def open(self) -> list[Sent]:
        return [sent for sent in self.sent if not sent.over]

    @property
    def waiting(self) -> int:
        return self.dispatcher.gate.waiting


def full(world: World) -> None:
    """Fill the only endpoint, and learn that it takes no more."""
    first = world.ask()
    second = world.ask()
    world.sent[1].answer(503)
    assert (world.waiting, first.status, second.status) == (1, None, None)


def test_who_finds_everybody_full_waits_and_begins_anew():
    world = World()
    full(world)
    world.sent[0].answer()
    world.wait(0.05)
    assert [s.to for s in world.open] == ["eu.a"]
    world.open[0].answer()
    assert [r.status for r in world.ended] == [200, 200]
    served = world.ended[1]
    assert (served.tries_count, served.waited_s > 0) == (2, True)
    assert [t.outcome for t in served.tried] == ["answered 503", "answered"]


def test_the_numbers_of_tries_go_on_after_waiting():
    world = World()
    full(world)
    world.sent[0].answer()
    world.wait(0.05)
    sent = [first(s.request.headers, b"x-isochrone-attempt") for s in world.sent]
    assert sent == [b"0", b"0", b"1"]


def test_a_newcomer_does_not_overtake_its_class_but_a_higher_one_does():
    world = World()
    full(world)
    later = world.ask()
    urgent = world.ask(priority=1)
    assert world.waiting == 3
    for _ in range(4):
        world.open[0].answer()
        world.wait(0.05)
    order = [r.query.request_id for r in world.ended]
    assert order == ["q1", "q4", "q2", "q3"]
    assert later.status == urgent.status == 200


def test_a_place_that_becomes_free_goes_to_who_waits_not_to_who_comes():
    world = World()
    full(world)
    world.now_s += 0.5  # nobody has looked since
    world.sent[0].answer()
    newcomer = world.ask()
    assert [first(s.request.headers, b"x-request-id") for s in world.open] == [b"q2"]
    assert newcomer.status is None


def test_what_expires_in_line_never_starts():
    world = World()
    full(world)
    late = world.ask(timeout_s=1.0)
    world.wait(1.1)
    assert (late.status, late.code) == (504, "deadline_exceeded")
    world.sent[0].answer()
    world.wait(0.1)
    assert b"q3" not in [first(s.request.headers, b"x-request-id") for s in world.sent]


def test_the_line_is_bounded_and_says_when_there_is_room():
    world = World(capacity=2)
    full(world)
    world.ask()
    refused = world.ask()
    assert (refused.status, refused.code) == (503, "overloaded")
    assert refused.retry_after_s >= 1


def test_the_lowest_class_gives_way_when_the_line_is_full():
    world = World(capacity=1)
    full(world)
    world.ended.clear()
    urgent = world.ask(priority=1)
    (shed,) = world.ended
    assert (shed.query.request_id, shed.status, shed.code) == ("q2", 503, "overloaded")
    assert urgent.status is None


def test_who_leaves_the_line_is_counted_and_forgotten():
    world = World()
    full(world)
    gone = world.ask()
    gone.leave()
    assert world.waiting == 1
    assert [(r.query.request_id, r.status) for r in world.ended] == [("q3", 0)]


def test_when_nobody_is_left_who_may_come_back_those_in_line_are_told():
    world = World()
    full(world)
    world.kill("eu.a")
    world.wait(0.05)
    assert [r.code for r in world.ended] == ["no_endpoint"]


def test_nobody_to_wait_for_is_told_at_once():
    world = World()
    refused = world.ask(required_regions=frozenset({"us"}), requirement="us")
    assert (refused.status, refused.code) == (503, "no_endpoint")
    assert json.loads(refused.body)["reasons"] == {"eu.a": "region eu is outside us"}


def test_a_quota_says_exactly_when_to_come_back():
    world = World(slots=9, quotas={"acme": Rate(requests_per_s=0.1, burst=2)})
    assert [world.ask(tenant="acme").status for _ in range(2)] == [None, None]
    refused = world.ask(tenant="acme")
    assert (refused.status, refused.code, refused.retry_after_s) == (429, "quota_exceeded", 10)
    assert world.ask().status is None, "others have none"
    world.now_s += 10
    assert world.ask(tenant="acme").status is None


def test_more_than_the_router_takes_at_once_is_refused():
    world = World(slots=9, in_flight=2)
    world.ask(), world.ask()
    assert world.ask().code == "overloaded"


def test_what_nobody_could_make_in_time_is_refused_at_once_and_not_asked_back():
    world = World()
    refused = world.ask(timeout_s=0.001)
    assert (refused.status, refused.code) == (504, "deadline_exceeded")
    assert first(refused.headers, b"retry-after") is None
    assert not world.sent


def test_what_only_the_line_makes_too_late_is_told_when_to_come_back():
    world = World()
    full(world)
    for _ in range(60):
        world.ask()
    refused = world.ask(timeout_s=0.2)
    assert (refused.status, refused.code) == (503, "overloaded")
    assert refused.retry_after_s >= 1


@pytest.mark.parametrize(
    ("regions", "code"),
    [
        pytest.param({"us"}, "overloaded", id="all who wait in the other lane want these slots"),
        pytest.param({"eu"}, None, id="nobody does"),
    ],
)
def test_what_waits_in_another_lane_for_the_same_slots_counts(regions, code):
    world = World(names=("eu.a", "us.b"))
    for site in ("us", "us", "eu", "eu"):
        world.ask(required_regions=frozenset({site}))
    world.open[1].answer(503)
    world.open[2].answer(503)
    for _ in range(60):
        world.ask(required_regions=frozenset({"us"}))
    refused = world.ask(timeout_s=0.3, required_regions=frozenset(regions), version="1")
    assert (refused.code if refused.status else None) == code


def test_what_a_long_body_needs_is_not_what_the_one_before_it_needed():
    world = World()
    for site in world.ledger.sites():
        site.holdings["digits", "1"].served(0.0, 0.02, 100_000, world.now_s)
        for number in range(40):
            now_s = world.now_s + number
            site.path.observe(0.01 + 0.5 * (number % 2), 1_000_000 * (number % 2), now_s)
    full(world)
    world.ask()
    assert world.ask(timeout_s=0.3).status is None
    assert world.ask(timeout_s=0.3, body_bytes=5_000_000).code == "deadline_exceeded"


def test_the_lowest_class_must_be_the_surest_of_its_deadline():
    world = World()
    scored = Chooser(Policy(), world.ledger, Random(1)).best(Query("q", "digits", 100.0, 130.0))
    predicted = scored.order[0].seconds
    assert predicted.sigma > 0
    timeout_s = predicted.total + 0.5 * predicted.sigma
    assert world.ask(timeout_s=timeout_s, priority=9).code == "overloaded"
    assert world.ask(timeout_s=timeout_s, priority=5).status is None


def test_a_deadline_that_only_a_warm_model_can_make_warms_it_for_the_next():
    world = World(state=ModelState.COLD, load_s=5.0)
    refused = world.ask(timeout_s=1.0)
    assert (refused.code, world.wakes) == ("overloaded", ["eu.a"])
    assert 4 <= refused.retry_after_s <= 6


def test_a_fallback_is_decided_with_the_fleet_as_it_is_then():
    world = World(names=("eu.a", "eu.b", "us.c"))
    world.ask()
    (begun,) = world.sent
    other = {"eu.a": "eu.b", "eu.b": "eu.a"}[begun.to]
    world.kill(other)
    begun.answer(500)
    assert [s.to for s in world.open] == ["us.c"], "the other has died meanwhile"


def test_a_fast_504_is_a_failure_and_is_tried_elsewhere():
    world = World(names=("eu.a", "eu.b"))
    client = world.ask()
    world.open[0].answer(504)
    world.open[0].answer()
    assert client.status == 200
    assert [t.outcome for t in world.ended[0].tried] == ["answered 504", "answered"]


def test_who_answers_504_at_once_again_and_again_is_held_back():
    world = World(names=("eu.a", "eu.b"), slots=9)
    for _ in range(6):
        world.ask()
        if world.open[0].to == "eu.a":
            world.open[0].answer(504)
        world.open[0].answer()
    held = {c.endpoint.name: c.held for c in world.ledger.candidates("digits", None)}
    assert held["eu.a"] is not None
    assert held["eu.b"] is None


def test_a_504_at_the_deadline_is_the_deadline():
    world = World(names=("eu.a", "eu.b"))
    client = world.ask(timeout_s=1.0)
    world.now_s += 0.95
    world.open[0].answer(504)
    assert (client.status, client.code, len(world.sent)) == (504, "deadline_exceeded", 1)


def test_who_finds_one_gone_and_the_other_full_waits():
    world = World(names=("eu.a", "us.b"))
    world.ask(required_regions=frozenset({"us"}))
    world.ask(required_regions=frozenset({"us"}))
    world.open[1].answer(503)
    client = world.ask(priority=1)
    world.open[1].lose(Cause.REFUSED)
    assert client.status is None
    assert world.waiting == 2
    world.wait(0.3)
    assert len(world.sent) == 3, "it is not asked again and again who refused"
    world.open[0].answer()
    world.wait(0.3)
    assert [first(s.request.headers, b"x-request-id") for s in world.open] == [b"q3"]


def beside_a_full_one(**changes: Any) -> World:
    """`us.b` is full, as is known, and the next request goes to `eu.a`; `open[0]` is at `us.b`."""
    world = World(names=("eu.a", "us.b"), **changes)
    for _ in range(2):
        world.ask(required_regions=frozenset({"us"}))
    world.open[1].answer(503)
    return world


@pytest.mark.parametrize("status", [404, 421, 507, 500, 302])
def test_who_was_asked_in_vain_waits_for_who_is_only_full(status):
    world = beside_a_full_one()
    client = world.ask(priority=1)
    assert world.open[1].to == "eu.a"
    world.open[1].answer(status)
    assert (client.status, world.waiting) == (None, 2)
    world.wait(0.3)
    assert len(world.sent) == 3, "where it failed it is not asked again"
    world.open[0].answer()
    world.wait(0.3)
    world.open[0].answer()
    assert client.status == 200
    assert [t.endpoint for t in world.ended[-1].tried] == ["eu.a", "us.b"]
    assert world.ended[-1].repeats == (status in {500, 302})


@pytest.mark.parametrize(
    ("status", "changes", "asked"),
    [
        pytest.param(500, {}, {"repeatable": False}, id="it may not be repeated"),
        pytest.param(404, {}, {"repeatable": False}, id="who knows whether it has run"),
        pytest.param(500, {"retries": 0.0}, {}, id="the budget is used up"),
    ],
)
def test_who_may_not_be_asked_again_is_told_at_once(status, changes, asked):
    world = beside_a_full_one(**changes)
    client = world.ask(priority=1, **asked)
    world.open[1].answer(status)
    assert (client.status, client.code) == (502, "unusable_answer")


def test_a_request_that_crashed_two_is_poison_however_long_it_waited_between():
    world = World(names=("eu.a", "eu.c", "us.b"))
    for _ in range(2):
        world.ask(required_regions=frozenset({"us"}))
    world.open[1].answer(503)
    world.kill("eu.c")
    client = world.ask(priority=1)
    world.open[1].lose()
    assert (client.status, world.waiting) == (None, 2)
    world.open[0].answer()
    world.wait(0.1)
    assert [first(s.request.headers, b"x-request-id") for s in world.open] == [b"q3"]
    world.open[0].lose()
    assert (client.status, client.code) == (502, "poison")


def test_nobody_waits_behind_one_who_was_asked_in_vain_where_others_may_go():
    world = beside_a_full_one()
    world.ask(priority=1)
    world.open[1].answer(500)
    world.ask(priority=5)
    assert [s.to for s in world.open] == ["us.b", "eu.a"]


def test_who_comes_back_to_a_full_line_keeps_its_place():
    world = World(capacity=1)
    full(world)
    world.sent[0].answer()
    world.wait(0.05)
    world.ask()
    assert (len(world.open), world.waiting) == (1, 1)
    world.open[0].answer(503)
    assert world.waiting == 2
    world.wait(0.5)
    assert first(world.open[0].request.headers, b"x-request-id") == b"q2"


def test_who_leaves_after_its_start_was_started_too_late_and_the_newest_go_first():
    world = World()
    full(world)
    second = world.ask()
    for _ in range(3):
        world.ask()
    world.sent[0].answer()
    world.wait(0.5)
    world.open[0].answer()
    world.wait(0.5)
    assert [first(s.request.headers, b"x-request-id") for s in world.open] == [b"q3"]
    second.leave()
    world.wait(0.2)
    assert [first(s.request.headers, b"x-request-id") for s in world.open] == [b"q6"]


def test_news_of_an_endpoint_are_looked_at_with_the_next_sweep():
    world = World()
    full(world)
    world.wait(0.5)
    looks = watched(world)
    world.dispatcher.sweep(world.now_s + 0.001)
    assert not looks
    (site,) = world.ledger.sites()
    world.dispatcher.news(site)
    world.dispatcher.sweep(world.now_s + 0.002)
    assert [query.request_id for query in looks] == ["q2"]


def test_who_is_refused_for_what_was_expected_has_it_tested():
    world = World()
    (site,) = world.ledger.sites()
    site.holdings["digits", "1"].served(0.0, 9.0, 0, world.now_s)
    assert world.ledger.suspects(world.now_s, 1.0) == []
    assert world.ask(timeout_s=1.0).code == "deadline_exceeded"
    assert world.ledger.suspects(world.now_s, 1.0) == [site.holdings["digits", "1"]]


def test_a_stream_that_flows_is_not_cut_for_missed_probes():
    world = World()
    client = world.ask()
    sent = world.open[0]
    sent.begin()
    world.runner.condemn("eu.a", "2 probes missed")
    assert not sent.over
    sent.end()
    assert client.body == b"part"
    assert [t.outcome for t in world.ended[0].tried] == ["answered"]
    waits = world.ask()
    world.runner.condemn("eu.a", "2 probes missed")
    assert waits.code == "unusable_answer", "nothing has come of this one"


def test_the_code_of_a_stream_that_was_cut_is_a_code():
    world = World()
    world.ask()
    world.open[0].begin()
    world.open[0].lose()
    assert [r.code for r in world.ended] == ["unusable_answer"]


def test_refused_requests_earn_no_second_tries():
    world = World(in_flight=1, retries=1.0)
    for _ in range(50):
        world.ask()
    assert world.spare.retries.left(world.now_s) == 1


def test_who_found_everybody_full_after_its_turn_keeps_its_place():
    world = World()
    full(world)
    for _ in range(3):
        world.ask()
    world.sent[0].answer()
    world.wait(0.05)
    world.open[0].answer(503)  # another router was faster
    world.wait(0.05)
    assert [first(s.request.headers, b"x-request-id") for s in world.open] == [b"q2"]


def test_who_may_go_elsewhere_does_not_overtake_a_higher_class():
    world = World(names=("eu.a", "us.b"))
    europe = frozenset({"eu"})
    held = [world.ask(required_regions=europe), world.ask(required_regions=frozenset({"us"}))]
    assert {s.to for s in world.open} == {"eu.a", "us.b"}
    world.ask(required_regions=europe)
    urgent = world.open[2]
    urgent.answer(503)
    world.ask(required_regions=europe, priority=1)
    world.ask(priority=9)
    assert world.waiting >= 2
    assert held[0].status is None
    world.sent[0].answer()
    world.wait(0.3)
    begun = [first(s.request.headers, b"x-request-id") for s in world.open if s.to == "eu.a"]
    assert begun == [b"q4"]


@pytest.mark.parametrize("priority", [1, 5, 9])
def test_a_place_that_nobody_has_seen_yet_goes_to_who_waits_in_another_lane(priority):
    world = World()
    world.ask(priority=1, required_regions=frozenset({"eu"}))
    world.open[0].answer(503)
    assert (world.waiting, world.open) == (1, [])
    world.now_s += 0.5  # by now it has room again
    world.ask(priority=priority)
    assert [first(s.request.headers, b"x-request-id") for s in world.open] == [b"q1"]


def test_who_can_start_where_nobody_else_waits_starts_at_once():
    world = World(names=("eu.a", "us.b"))
    europe = frozenset({"eu"})
    for _ in range(2):
        world.ask(required_regions=europe)
    world.open[1].answer(503)
    assert world.waiting == 1
    world.ask(required_regions=frozenset({"us"}))
    assert [s.to for s in world.open] == ["eu.a", "us.b"]


def test_one_tenant_in_many_lanes_gets_one_share():
    world = World(capacity=1000)
    full(world)
    pins = [None, "1"]
    regions = [None, frozenset({"eu"}), frozenset({"eu", "us"})]
    for number in range(36):
        lane: dict[str, Any] = {
            "version": pins[number % 2],
            "required_regions": regions[number % 3],
        }
        world.ask(tenant="spread", **lane)
    for _ in range(6):
        world.ask(tenant="plain")
    for _ in range(14):
        world.open[0].answer()
        world.wait(0.2)
    tenants = [r.query.tenant for r in world.ended][2:]
    assert len(tenants) == 12
    assert tenants.count("plain") >= 5, "half, within one largest cost of each"


def watched(world: World) -> list[Query]:
    """For whom somebody to take them is looked for, from now on."""
    looks: list[Query] = []
    best = world.chooser.best

    def look(query: Query, tried=()):
        looks.append(query)
        return best(query, tried)

    world.chooser.best = look
    return looks


def test_a_sweep_looks_again_only_where_something_may_have_changed():
    world = World(capacity=1000)
    full(world)
    looks = watched(world)
    for site in world.ledger.sites():
        site.holdings["digits", "1"].full_until_s = world.now_s + 60
    for number in range(100):
        regions = frozenset({"eu", f"r{number}"})
        world.ask(required_regions=regions)
    looks.clear()
    world.dispatcher.sweep(world.now_s)
    assert 0 < len(looks) <= LOOKS_COUNT
    for _ in range(10):
        world.dispatcher.sweep(world.now_s)
    seen = {query.required_regions for query in looks}
    assert len(seen) == 101, "each lane has had its look"
    looks.clear()
    world.dispatcher.sweep(world.now_s + 0.01)
    assert not looks


def test_one_that_cannot_be_told_its_end_takes_nobody_with_it(caplog):
    world = World()
    full(world)
    world.ask(timeout_s=1.0), world.ask(timeout_s=1.0)
    world.ended_raises = True
    world.wait(1.1)
    assert len(world.ended) == 2
    assert "cannot be told" in caplog.text
    world.ended_raises, world.refuse_raises = False, True
    gone = world.ask(timeout_s=1.0)
    world.wait(1.1)
    assert (gone.gone, world.ended[-1].code) == (True, "internal")


def test_a_crash_of_two_is_poison():
    world = World(names=("eu.a", "eu.b", "us.c"))
    client = world.ask()
    world.open[0].lose()
    world.open[0].lose()
    assert (client.status, client.code, len(world.sent)) == (502, "poison", 2)


def test_what_may_not_be_repeated_is_not():
    world = World(names=("eu.a", "eu.b"))
    client = world.ask(repeatable=False)
    world.open[0].lose()
    assert (client.status, client.code, len(world.sent)) == (502, "unusable_answer", 1)
    second = world.ask(repeatable=False)
    world.open[0].lose(Cause.REFUSED)
    world.open[0].answer()
    assert second.status == 200, "nothing was run where no connection could be made"


def test_a_retry_storm_stays_within_the_budget():
    world = World(names=("eu.a", "eu.b", "us.c"), slots=50, retries=0.2)
    for _ in range(50):
        world.ask()
    for sent in world.open:
        sent.answer(500)
    assert len(world.sent) == 60


def test_a_burst_of_mistakes_of_clients_opens_nothing():
    world = World(slots=50)
    for status in [400, 401, 403, 409, 413, 422] * 5:
        world.ask()
        world.open[0].answer(status)
    assert [r.status for r in world.ended[:6]] == [400, 401, 403, 409, 413, 422]
    candidate = world.ledger.candidates("digits", None)[0]
    assert (candidate.out, candidate.held) == (None, None)


def hedging(**changes: Any) -> World:
    budget = HedgeBudget(0.05)
    for _ in range(100):
        budget.requested()
    return World(names=("eu.a", "eu.b"), hedges=budget, **changes)


def test_a_late_answer_is_hedged_and_the_first_one_wins():
    world = hedging()
    client = world.ask()
    world.wait(1.0)
    slow, fast = world.sent
    assert {slow.to, fast.to} == {"eu.a", "eu.b"}
    fast.answer()
    assert slow.over, "the loser is cancelled"
    assert client.status == 200
    (record,) = world.ended
    assert (record.hedges, [t.outcome for t in record.tried]) == (
        1,
        ["answered", "another was faster"],
    )
    assert first(client.headers, b"x-isochrone-reason") == b"hedge"
    assert all(site.in_flight == 0 for site in world.ledger.sites())


NO_HEDGES = {
    "generations are not hedged": {"action": "generate"},
    "nor what may not be repeated": {"repeatable": False},
    "nor a model that is not to be": {"model": "alone"},
    "nor what could not make its deadline": {"timeout_s": 0.09},
}


@pytest.mark.parametrize("changes", NO_HEDGES.values(), ids=NO_HEDGES)
def test_the_gates_of_hedging(changes):
    for asked, sent in ((changes, 1), ({}, 2)):
        world = hedging()
        world.ask(**asked)
        world.wait(0.08)
        assert len(world.sent) == sent


def test_nothing_is_hedged_to_a_busy_endpoint_or_without_a_budget():
    world = hedging(slots=2)
    for _ in range(2):
        world.ask()
    world.wait(1.0)
    assert len(world.sent) == 2, "each has half of its slots in use"
    world = World(names=("eu.a", "eu.b"), hedges=HedgeBudget(0.05))
    world.ask()
    world.wait(1.0)
    assert len(world.sent) == 1
    assert not World().runner.hedging, "off costs nothing"


ENDS = st.sampled_from(["answer", "full", "failed", "lost", "refused", "leave", "wait", "ask"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(ENDS, st.integers(0, 9)), max_size=60), st.integers(0, 3))
def test_every_request_ends_in_exactly_one_record(script, capacity):
    world = World(names=("eu.a", "eu.b"), capacity=capacity, hedges=HedgeBudget(0.1))
    clients: list[Client] = []
    for what, number in script:
        if what == "ask":
            clients.append(world.ask(timeout_s=1.0 + number, priority=max(1, number)))
        elif what == "wait":
            world.wait(0.05 * number)
        elif what == "leave" and clients:
            client = clients[number % len(clients)]
            if client.status is None and not client.gone:
                client.leave()
        elif world.open:
            play(world.open[number % len(world.open)], what)
    world.wait(11.0)
    assert sorted(r.query.request_id for r in world.ended) == sorted(
        f"q{n + 1}" for n in range(len(clients))
    )
    assert (world.waiting, len(world.runner.running), len(world.runner.hedging)) == (0, 0, 0)
    assert all(not site.open for site in world.ledger.sites())
    assert all(c.gone or c.status is not None for c in clients)


def play(sent: Sent, what: str) -> None:
    match what:
        case "answer":
            sent.answer()
        case "full":
            sent.answer(503)
        case "failed":
            sent.answer(500)
        case "lost":
            sent.lose()
        case "refused":
            sent.lose(Cause.REFUSED)
