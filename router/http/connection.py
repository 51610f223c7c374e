"""One client's connection: it passes requests to the service one by one and answers in order.

It creates no task and no timer for a request: the listener's sweep checks its deadlines.
"""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol, cast

from isochrone.router.errors import IsochroneError
from isochrone.router.http.answer import CONTINUE, encode_refusal
from isochrone.router.http.answering import HttpExchange
from isochrone.router.http.exchange import Service
from isochrone.router.http.known_heads import KnownHeads
from isochrone.router.http.limits import Limits, Room
from isochrone.router.http.request_head import Refusal, bad
from isochrone.router.http.request_reader import RequestReader, Stage
from isochrone.router.http.sockets import reset_at_close, round_trip_s
from isochrone.router.process.clock import Clock
from isochrone.router.wire.http import Headers, Request
from isochrone.router.wire.problem import problem_answer

PIPELINED = 16
"""Most whole requests that queue on one connection: then it stops reading."""
LINGER_S = 2.0
"""How long a refused client may still send before the connection closes (RFC 9112 §9.6)."""
TRIP_S = 1.0
"""Interval between reads of the kernel's round trip, which is smoothed and changes slowly."""
APART_BYTES = 16 << 10
"""A body of this size is written by itself: to copy it costs more than another write."""
_MAPPED = "::ffff:"
"""Prefix of an IPv4 client's address on a dual-stack socket (RFC 4291 §2.5.5.2)."""
_PROBE_AGAIN_S = (0.01, 0.1, 1.0)
"""When to probe a half-closed client again. A fully closed client resets the connection at the
first probe, and the next write fails."""
FRESH_S = 1.0
"""While draining: how long a new connection may still send its first request."""

_log = logging.getLogger("isochrone.listener")
_FAILED = problem_answer(IsochroneError("internal error"))
_FULL = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE, "overloaded", "too many connections", retry_after_s=1
)
_CUT_SHORT = bad("the connection ended before the request was whole")
_SLOW = Refusal(HTTPStatus.REQUEST_TIMEOUT, "timeout", "the request took too long to arrive")


class Host(Protocol):
    """The part of a listener that its connections use."""

    limits: Limits
    room: Room
    heads: KnownHeads
    clock: Clock
    service: Service
    date: bytes
    draining: bool
    in_flight: int
    refusal_fields: Callable[[], Headers]

    def admit(self, connection: "Connection") -> bool:
        """Count a new connection, unless there are too many."""
        ...

    def forget(self, connection: "Connection") -> None:
        """The connection is closed."""
        ...

    def new_id(self) -> bytes:
        """An id for a refused request without one."""
        ...


class Connection(asyncio.Protocol):
    """The protocol of one accepted connection, and the carrier of its answers."""

    __slots__ = (
        "_current",
        "_deaf",
        "_eof",
        "_held",
        "_host",
        "_probes",
        "_pumping",
        "_reader",
        "_refusal",
        "_served",
        "_stalled_s",
        "_transport",
        "_trip_due_s",
        "_until_s",
        "_yields",
        "stalled",
        "stuck_s",
        "unsent_bytes",
    )

    def __init__(self, host: Host) -> None:
        self._host = host
        self._transport: asyncio.Transport
        self._reader: RequestReader
        self._current: HttpExchange | None = None
        self._refusal: Refusal | None = None
        self._held = b""
        self._deaf = False
        self._eof = False
        self._probes = 0
        self._pumping = False
        self._yields = False
        """It has answered a request in this iteration of the event loop."""
        self._served = False
        self._trip_due_s = 0.0
        self._until_s: float | None = None
        self.stalled = False
        self._stalled_s = 0.0
        self.unsent_bytes = 0
        """Size of the answers in memory that the client has not read."""
        self.stuck_s = 0.0
        """When the client last read some of them."""

    # --- the transport calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        host = self._host
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=host.limits.write_buffer_bytes)
        peer = transport.get_extra_info("peername")
        address = peer[0].removeprefix(_MAPPED) if peer else ""
        self._reader = RequestReader(host.limits, host.clock, address, host.room, host.heads)
        if not host.admit(self):
            self._deaf = True
            self._transport.write(encode_refusal(_FULL, host.new_id(), host.refusal_fields()))
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse what arrived and serve the first request."""
        if self._deaf:
            return
        if self._held:  # it came before reading stopped
            self._held += data
            return
        reader = self._reader
        waiting = reader.requests
        rest: bytes | memoryview = data
        while rest and not self._deaf:
            if waiting and (len(waiting) >= PIPELINED or waiting[-1].body):
                self._held = bytes(rest)
                self._transport.pause_reading()
                return
            try:
                taken = reader.feed(rest)
            except Refusal as refusal:
                self._refuse(refusal)
                return
            rest = memoryview(rest)[taken:] if taken < len(rest) else b""
            self._pump()

    def eof_received(self) -> bool:
        """The client sends nothing more, but may still read answers (RFC 9112 §9.6)."""
        if self._deaf:
            return False
        self._eof = True
        self._probe_half_closed()
        if self._current is None and not self._reader.requests:
            self._between()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by either side."""
        del exc
        self._deaf = True
        self._held = b""
        self._refusal = None
        self._count_unsent(0)
        self._reader.close()
        current, self._current = self._current, None
        self._host.forget(self)
        if current is not None:
            self._host.in_flight -= 1
            current.leave()

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self.stalled = True
        self._stalled_s = self._host.clock()
        if self._current is not None:
            self._current.stall(stalled=True)

    def resume_writing(self) -> None:
        """It has caught up."""
        self.stalled = False
        if self._current is not None:
            self._current.stall(stalled=False)
        self._pump()

    # --- the answers' carrier ---

    @property
    def date(self) -> bytes:
        """The Date line of this second."""
        return self._host.date

    @property
    def stays(self) -> bool:
        """The connection accepts more requests."""
        if self._eof and not (self._reader.requests or self._held):
            return False
        return not self._host.draining

    def round_trip_s(self) -> float | None:
        """The kernel's round trip to the client; None if it was read less than `TRIP_S` ago."""
        now_s = self._reader.since_s
        if now_s < self._trip_due_s:
            return None
        self._trip_due_s = now_s + TRIP_S
        return round_trip_s(self._transport.get_extra_info("socket"))

    def send(self, head: bytes, body: bytes = b"", tail: bytes = b"") -> None:
        """Write these to the client, in one write unless the body is large."""
        if len(body) < APART_BYTES:
            self._transport.write(head + body + tail)
        else:  # not writelines: asyncio's joins, and uvloop gathers separate writes anyway
            self._transport.write(head)
            self._transport.write(memoryview(body))  # asyncio slices off what was sent
            if tail:
                self._transport.write(tail)
        if (unsent_bytes := self._transport.get_write_buffer_size()) != self.unsent_bytes:
            self._count_unsent(unsent_bytes)

    def ended(self, *, keep: bool) -> None:
        """The exchange is over; keep the connection for the next request, or close it."""
        host, reader = self._host, self._reader
        if self._current is not None:
            reader.give_back(len(self._current.request.body))
        self._current = None
        self._probes = 0
        host.in_flight -= 1
        if not keep or host.draining:
            self._close()
            return
        self._served = True
        if reader.stage is Stage.IDLE:
            reader.since_s = host.clock()
        if reader.requests or self._held or self._eof or reader.waits or self._refusal:
            self._pump()  # seldom: most clients send nothing before the answer

    def cut(self) -> None:
        """The exchange is over: drop the connection at once."""
        self.abort()
        self._current = None
        self._host.in_flight -= 1

    # --- the listener calls ---

    @property
    def busy(self) -> bool:
        """A request is being answered, queued or received."""
        receiving = self._reader.stage is not Stage.IDLE and not self._deaf
        return self._current is not None or bool(self._reader.requests) or receiving

    def abort(self) -> None:
        """Drop everything now; a reset, where an end would look like the end of an answer."""
        self._deaf = True
        self._reader.requests.clear()
        if self._current is not None and self._current.ends_with_connection:
            reset_at_close(self._transport)
        self._transport.abort()
        self._count_unsent(0)

    def drain(self) -> None:
        """Close if idle; a request under way ends with `connection: close`."""
        if not self.busy and self._served:
            self._close()

    def sweep(self, now_s: float) -> None:
        """Refuse or close what has passed its deadline."""
        if self.unsent_bytes and not self._transport.is_closing():
            self._count_unsent(self._transport.get_write_buffer_size())
        if now_s < self._deadline_s():
            return
        if self._until_s is not None or self.stalled:
            self.abort()
        elif self._reader.stage is Stage.IDLE:
            self._close()
        else:
            self._refuse(_SLOW)

    def _deadline_s(self) -> float:
        limits, since_s = self._host.limits, self._reader.since_s
        if self._until_s is not None:
            return self._until_s
        if self.stalled:
            return self._stalled_s + limits.idle_s
        if self._held or self._reader.waits:  # the listener delays the client
            return float("inf")
        if self._reader.stage is Stage.HEAD:
            return since_s + limits.header_s
        if self._reader.stage is Stage.BODY:
            return since_s + limits.body_s
        if self._current is not None:
            return float("inf")
        if self._served:
            return since_s + limits.idle_s
        return since_s + (min(FRESH_S, limits.header_s) if self._host.draining else limits.header_s)

    def _count_unsent(self, size_bytes: int) -> None:
        grown_bytes = size_bytes - self.unsent_bytes
        if grown_bytes < 0 or not self.unsent_bytes:
            self.stuck_s = self._stalled_s = self._host.clock()
        self.unsent_bytes = size_bytes
        self._host.room.add(grown_bytes)

    # --- requests in, in order ---

    def _pump(self) -> None:
        """Serve the next request, if it may be served now."""
        if self._pumping or self._yields:  # the service has answered while it was called
            return
        requests = self._reader.requests
        if self._current is None and requests and not self.stalled:
            self._pumping = True
            self._serve(requests.popleft())
            self._pumping = False
            if self._current is None:  # answered at once: serve other connections before the next
                self._yields = True
                asyncio.get_running_loop().call_soon(self._pump_again)
        if self._current is None and not requests:
            self._between()
        if self._held and len(requests) < PIPELINED and not (requests and requests[-1].body):
            held, self._held = self._held, b""
            self._reader.since_s = self._host.clock()
            self._transport.resume_reading()
            self.data_received(held)

    def _pump_again(self) -> None:
        self._yields = False
        self._pump()

    def _serve(self, request: Request) -> None:
        host = self._host
        exchange = self._current = HttpExchange(self, request)
        host.in_flight += 1
        try:
            host.service(exchange)
        except Exception:  # the client gets an answer, and other clients are served
            _log.exception("the service failed on %s", request.method)
            if exchange.unanswered:
                exchange.respond(*_FAILED)
            else:
                exchange.abort()
        if self._eof:
            self._probe_half_closed()

    def _between(self) -> None:
        """No request is under way or queued: do what was postponed until then."""
        if self._eof and not (self._deaf or self._held):
            if self._reader.stage is Stage.IDLE:
                self._close()
            else:
                self._refuse(_CUT_SHORT)
        elif self._refusal is not None:
            self._send_refusal(self._refusal)
        elif self._reader.waits and not self._deaf:
            self._reader.waits = False
            self._reader.since_s = self._host.clock()
            self._transport.write(CONTINUE)

    def _probe_half_closed(self) -> None:
        """Send a 100: it shows whether a half-closed client has closed both ways."""
        if self._current is None or not self._current.send_interim():
            return
        if self._probes < len(_PROBE_AGAIN_S):
            loop = asyncio.get_running_loop()
            loop.call_later(_PROBE_AGAIN_S[self._probes], self._probe_half_closed)
            self._probes += 1

    # --- the end ---

    def _refuse(self, refusal: Refusal) -> None:
        """Read nothing more; refuse once the requests before it are answered."""
        self._deaf = True
        self._held = b""
        self._reader.drop()
        self._refusal = refusal
        self._pump()

    def _send_refusal(self, refusal: Refusal) -> None:
        """Send it, and close later: closing now would reset a client that still sends."""
        self._refusal = None
        self._until_s = self._host.clock() + LINGER_S
        host = self._host
        request_id = self._reader.request_id or host.new_id()
        self._transport.write(encode_refusal(refusal, request_id, host.refusal_fields()))
        if self._eof:
            self._transport.close()
        elif self._transport.can_write_eof():
            self._transport.write_eof()

    def _close(self) -> None:
        self._deaf = True
        self._refusal = None
        self._reader.requests.clear()
        self._until_s = self._host.clock() + self._host.limits.idle_s
        self._transport.close()
