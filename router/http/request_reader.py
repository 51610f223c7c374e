"""Bytes in, whole requests out: the reading half of a connection, without I/O."""

import re
from collections import deque
from enum import Enum, auto

import httptools

from isochrone.router.http.chunk_sizes import ChunkSizes
from isochrone.router.http.known_heads import KnownHeads
from isochrone.router.http.limits import Limits, Room
from isochrone.router.http.received import Received
from isochrone.router.http.request_head import (
    Framing,
    bad,
    head_too_large,
    no_room,
    read_framing,
    read_target,
    too_large,
    too_many_fields,
)
from isochrone.router.process.clock import Clock
from isochrone.router.wire.headers import REQUEST_ID, read_request_id
from isochrone.router.wire.http import Request, first

STEP_BYTES = 4096
"""Most bytes that are parsed at once where new requests may begin: a bound on what they become."""
FIELDS = 256
"""Most header fields: in memory, each takes ten times the four bytes that it needs to be."""
_EMPTY_LINE = re.compile(rb"\n\r?\n")
_CHUNK_OVERHEAD = 16
"""Framing bytes that go with each byte of a chunked body at most, beside those of a head."""

if not httptools.parser.parser.__file__.endswith((".so", ".pyd")):
    raise ImportError("httptools must be the C parser: its checks are what this listener rests on")


class Stage(Enum):
    """Which part of a request is awaited."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()


class RequestReader:
    """Reads the requests of one connection; whole ones wait in `requests`, in order.

    `since_s` is the instant at which the present stage began; `waits` says that the client has sent
    a head with `Expect: 100-continue` and sends no body before it gets one. `held_bytes` are of
    bodies that came and were not given back.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_clock",
        "_fed_bytes",
        "_final",
        "_framing",
        "_head_bytes",
        "_headers",
        "_heads",
        "_left",
        "_limits",
        "_parser",
        "_peer",
        "_raw",
        "_received",
        "_room",
        "_sizes",
        "_tail",
        "_url",
        "held_bytes",
        "requests",
        "since_s",
        "stage",
        "waits",
    )

    def __init__(
        self, limits: Limits, clock: Clock, peer: str, room: Room, heads: KnownHeads
    ) -> None:
        """`room` and `heads` are shared by all connections of a listener."""
        self._room = room
        self.held_bytes = 0
        self._limits = limits
        self._clock = clock
        self._peer = peer
        self._parser = httptools.HttpRequestParser(self)
        self._final = False
        self._heads = heads
        self.requests: deque[Received] = deque()
        self.waits = False
        self._tail = b""
        self._start(Stage.IDLE)

    def feed(self, data: bytes | memoryview) -> int:
        """Parse a part of what came; returns how many bytes that was.

        Raises:
            Refusal: it is no HTTP that we take; nothing more may be fed.
        """
        if self._final:  # RFC 9112 §9.6: nothing after the last request is looked at
            return len(data)
        if self._raw:
            return self._feed_raw(data)
        if self.stage is not Stage.IDLE:
            return self._parse(data)
        if isinstance(data, bytes) and self._is_known(data):
            return len(data)
        waited = len(self.requests)
        fed = self._parse(data)
        if self._left and fed < len(data) and not self._raw:
            fed += self._parse(memoryview(data)[fed:])
        ended = self.stage is Stage.IDLE and fed == len(data)
        if ended and len(self.requests) == waited + 1 and isinstance(data, bytes):
            self._learn(data)
        return fed

    def _parse(self, data: bytes | memoryview) -> int:
        part = self._part(data)
        try:
            self._parser.feed_data(part)
        except httptools.HttpParserUpgrade as upgrade:  # not taken: the request is an ordinary one
            return int(upgrade.args[0])
        except httptools.HttpParserCallbackError as error:
            raise _cause(error) from None
        except httptools.HttpParserError as error:
            if not self._final:
                raise bad(f"not HTTP/1.1: {error}") from None
        self._account(len(part))
        return len(part)

    def _part(self, data: bytes | memoryview) -> bytes | memoryview:
        """What is parsed next: at most a head, a body or a step, and never the end of two."""
        if self._left:
            return data[: self._left]
        part = bytes(data[:STEP_BYTES])
        if self.stage is not Stage.BODY:
            return self._to_empty_line(part)
        if self._framing.length is not None:
            return part
        if not self._sizes.ended:
            taken = self._sizes.take(part)
            if self._sizes.announced_bytes > self._limits.body_bytes:
                raise too_large(self._limits.body_bytes)
            self._tail = b"\n"
            return part[:taken]
        return self._to_empty_line(part)

    def _to_empty_line(self, part: bytes) -> bytes:
        """Up to the empty line that ends a head or the trailers, also where it is cut in two."""
        found = _EMPTY_LINE.search(self._tail + part)
        if found is None:
            self._tail = (self._tail + part)[-2:]
            return part
        part = part[: found.end() - len(self._tail)]
        self._tail = b""
        return part

    def _learn(self, data: bytes) -> None:
        """These bytes were one whole request: its head is known when it comes again."""
        framing = self._framing
        if framing.length is not None and not framing.waits and not self._final:
            self._heads.learn(data, framing.length, self.requests[-1])

    def _is_known(self, data: bytes) -> bool:
        """Take a whole request whose head is that of one before: no need to parse it."""
        now_s = self._clock()
        received = self._heads.again(data, self._peer, now_s)
        if received is None:
            return False
        body_bytes = len(received.request.body)
        if body_bytes:
            self._hold(body_bytes)
        self.since_s = now_s
        self.requests.append(received)
        return True

    def _feed_raw(self, data: bytes | memoryview) -> int:
        """The body of a request that asks for an upgrade: the parser leaves it to its user."""
        part = bytes(data[: self._left])
        self.on_body(part)
        if not self._left:
            self._raw = False
            self.on_message_complete()
        return len(part)

    def _account(self, fed: int) -> None:
        """Bound what the parser keeps to itself: unfinished fields, chunk extensions, trailers."""
        if self.stage is Stage.IDLE or self._framing.length:
            return
        self._fed_bytes += fed
        most = self._limits.header_bytes + _CHUNK_OVERHEAD * self._body_bytes
        if self._fed_bytes - self._body_bytes > most + STEP_BYTES:
            raise head_too_large(self._limits.header_bytes)

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._start(Stage.HEAD)

    def _start(self, stage: Stage) -> None:
        self.stage = stage
        self.since_s = self._clock()
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._fed_bytes = 0
        self._framing = Framing(None, waits=False)
        self._left = 0
        self._raw = False
        self._sizes = ChunkSizes()
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._received: Received | None = None

    def on_url(self, url: bytes) -> None:
        """Called by the parser, possibly in parts."""
        self._url += url
        self._head_bytes += len(url)
        if self._head_bytes > self._limits.header_bytes:
            raise head_too_large(self._limits.header_bytes)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser; also for trailers, which nobody here needs."""
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._limits.header_bytes:
            raise head_too_large(self._limits.header_bytes)
        if len(self._headers) >= FIELDS:
            raise too_many_fields(FIELDS)
        if self._received is None:
            self._headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        version = self._parser.get_http_version()
        method = self._parser.get_method().decode("ascii")
        framing = read_framing(version, self._headers, self._limits.body_bytes)
        path, query = read_target(method, self._url)
        self.stage = Stage.BODY
        self.since_s = self._clock()
        self._framing = framing
        self._left = framing.length or 0
        self._raw = self._parser.should_upgrade() and framing.length != 0
        if self._raw and framing.length is None:
            raise bad("an upgrade is not offered, and with chunks it cannot be passed over")
        self.waits = framing.waits
        request = Request(
            method, path, self._headers, b"", query, peer=self._peer, received_s=self.since_s
        )
        self._received = Received(request, self._parser.should_keep_alive(), version == "1.1")

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        self.waits = False
        if self._body_bytes + len(data) > self._limits.body_bytes:
            raise too_large(self._limits.body_bytes)
        self._hold(len(data))
        self._body.append(data)
        self._body_bytes += len(data)
        self._left = max(0, self._left - len(data))

    def _hold(self, count_bytes: int) -> None:
        if not self._room.take(count_bytes):
            raise no_room()
        self.held_bytes += count_bytes

    @property
    def request_id(self) -> bytes | None:
        """What the request that is being read calls itself, where that is an id."""
        return read_request_id(first(self._headers, REQUEST_ID))

    def drop(self) -> None:
        """Let go of a body that is half here: nothing more will be fed."""
        if self.stage is Stage.BODY:
            self.give_back(self._body_bytes)
            self._body_bytes = 0
            self._body = []

    def close(self) -> None:
        """The connection is gone, and whatever is here is not needed; nothing more will be fed."""
        self.requests.clear()
        self.give_back(self.held_bytes)
        del self._parser  # it calls this reader: either keeps the other

    def give_back(self, count_bytes: int) -> None:
        """Bodies of so many bytes are not needed any more."""
        self.held_bytes -= count_bytes
        self._room.add(-count_bytes)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._raw:
            return
        received, self._received = self._received, None
        assert received is not None  # the parser has called on_headers_complete
        body = self._body
        if body:
            received.request.body = body[0] if len(body) == 1 else b"".join(body)
            self._body = []
        self.stage = Stage.IDLE
        self.waits = False
        self._final = not received.keep_alive
        self.requests.append(received)


def _cause(error: httptools.HttpParserCallbackError) -> BaseException:
    """What a callback raised: a refusal, or a mistake of ours that must be seen."""
    return error.__context__ if error.__context__ is not None else error
