"""A dispatcher in virtual time: no socket, no loop, no sleep; the test plays the endpoints."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

from msgspec.structs import replace

from isochrone.router.admission.gate import Gate
from isochrone.router.admission.quota import Quotas
from isochrone.router.dispatch.budget import RetryBudget
from isochrone.router.dispatch.chooser import Chooser
from isochrone.router.dispatch.dispatcher import Dispatcher, Effects
from isochrone.router.dispatch.request import RoutedRequest
from isochrone.router.dispatch.runner import Runner
from isochrone.router.dispatch.spare import Spare
from isochrone.router.fleet.ledger import Ledger
from isochrone.router.members.endpoint import Endpoint
from isochrone.router.members.membership import Member, Membership
from isochrone.router.policy.policy import Policy
from isochrone.router.policy.query import Query
from isochrone.router.upstream.event import Cause, Chunk, End, Head, Lost
from isochrone.router.wire.http import Request, first
from isochrone.router.wire.problem import problem_answer
from isochrone.router.wire.report import (
    LOAD_HEADER,
    CallReport,
    EndpointReport,
    HeldModel,
    Lease,
    ModelState,
    encode_call_report,
)

WARM = ModelState.WARM
NOTHING_NEW = CallReport(
    instance="i1",
    sequence=0,
    in_flight=0,
    slots=1,
    latency_s=0.0,
    wait_s=0.0,
    infer_s=0.0,
    models_generation=1,
)
REPORT = encode_call_report(NOTHING_NEW)

REGIONS = {"eu": 0.01, "us": 0.08}


class Client:
    """An exchange that keeps what it was answered."""

    def __init__(self, *headers: tuple[bytes, bytes]) -> None:
        self.request = Request("POST", "/v2/models/digits/infer", list(headers), b"opaque")
        self.gone = False
        self.status: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self._gone: Callable[[], object] = lambda: None

    def respond(self, status, headers, body) -> None:
        assert self.status is None, "answered once"
        self.status, self.headers, self.body = status, headers, body

    def start(self, status, headers) -> None:
        self.respond(status, headers, b"")

    def write(self, chunk) -> None:
        self.body += chunk

    def finish(self, code: str = "") -> None:
        pass

    def abort(self) -> None:
        self.gone = True

    def watch(
        self,
        *,
        gone: Callable[[], object],
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

    def __init__(self, to: str, request: Request, on_events, *, reports: bool = True) -> None:
        self.to = to
        self.reports = reports
        self.report = REPORT
        self.again: Callable[[], bool] = lambda: False
        self.request = request
        self._on_events = on_events
        self.over = False

    def cancel(self) -> None:
        self.over = True

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def answer(self, status: int = 200, body: bytes = b"ok", /, **headers: str) -> None:
        """As an agent does: with a report, and when it is full with a time to come back."""
        if self.over:
            return
        if status in (429, 503) and self.reports:
            headers = {"retry_after": "1", **headers}
        fields = [(n.replace("_", "-").encode(), v.encode()) for n, v in headers.items() if v]
        self.over = True
        head = Head(status, [*self.head(len(body)), *fields])
        self._on_events((head, Chunk(body), End()) if body else (head, End()))

    def head(self, length: int | None = None) -> list[tuple[bytes, bytes]]:
        fields = [] if length is None else [(b"content-length", b"%d" % length)]
        return [*fields, (LOAD_HEADER, self.report)] if self.reports else fields

    def begin(self) -> None:
        self._on_events((Head(200, self.head()), Chunk(b"part")))

    def end(self) -> None:
        self.over = True
        self._on_events((End(),))

    def lose(self, cause: Cause = Cause.RESET) -> None:
        if not self.over:
            self.over = True
            self._on_events((Lost(cause, ""),))


class World:
    """A dispatcher before endpoints that do what the test says; those of `foreign` don't report."""

    def __init__(self, *, slots: int = 1, names=("eu.a",), state=WARM, **changes: Any) -> None:
        self.now_s = 100.0
        self.sent: list[Sent] = []
        self.ended: list[RoutedRequest] = []
        self.wakes: list[str] = []
        self.slots = slots
        load_s = changes.pop("load_s", 0.5)
        held = tuple(HeldModel(name, "1", state, load_s=load_s) for name in ("digits", "alone"))
        foreign = changes.pop("foreign", ())
        endpoints = [
            Endpoint(name, f"http://{name}:1", name.split(".")[0], reports=name not in foreign)
            for name in names
        ]
        members = [Member(e, slots=slots, models=held) for e in endpoints]
        self.ledger = Ledger(REGIONS, "r1", rng=Random(2))
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
            wall=lambda: 1e9 + self.now_s,
            most_attempts=3,
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

    def report(self, held, sequence: int = 1) -> None:
        for site in self.ledger.sites():
            self.ledger.probe_sent(site, self.now_s)
            if not site.endpoint.reports:
                self.ledger.probe_ready(site, REGIONS[site.endpoint.region], self.now_s)
                continue
            told = EndpointReport(
                wire_version=1,
                name=site.endpoint.name,
                region=site.endpoint.region,
                instance="i1",
                sequence=sequence,
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
            def send(self, request, on_events, *, again, **_):
                sent = Sent(endpoint.name, request, on_events, reports=endpoint.reports)
                sent.again = again
                world.sent.append(sent)
                return world.sent[-1]

        return Way()

    def _ended(self, record: RoutedRequest) -> None:
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
            self.ledger.sweep(self.now_s)
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
    def under_way(self) -> list[str]:
        """The ids of the requests that endpoints have."""
        return [(first(s.request.headers, b"x-request-id") or b"").decode() for s in self.open]

    @property
    def waiting(self) -> int:
        return self.dispatcher.gate.waiting


def full(world: World) -> None:
    """Fill the only endpoint, and learn that it takes no more."""
    first = world.ask()
    second = world.ask()
    world.sent[1].answer(503)
    assert (world.waiting, first.status, second.status) == (1, None, None)
