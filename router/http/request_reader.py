"""Parses the bytes of one connection into whole requests, without I/O."""

import re
from collections import deque
from enum import Enum, auto

import httptools

from isochrone.router.http.known_heads import KnownHeads
from isochrone.router.http.limits import Limits, Room
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
_CHUNK_SIZE = re.compile(rb"\s*([0-9a-fA-F]*)")
_CHUNK_OVERHEAD = 16
"""Most framing bytes for each byte of a chunked body, besides those of a head."""

if not httptools.parser.parser.__file__.endswith((".so", ".pyd")):
    raise ImportError("httptools must be the C parser: its checks are what this listener rests on")


class Stage(Enum):
    """The part of a request that comes next."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()


class ChunkSizes:
    """The announced sizes of a chunked body, read before its data have come (RFC 9112 §7.1).

    The parser checks the syntax, but does not report the sizes. `announced_bytes` is the sum of the
    sizes so far; a size counts as soon as its digits have come, before the end of its line.
    """

    __slots__ = ("_before", "_line", "_skip", "announced_bytes", "ended")

    def __init__(self) -> None:
        self.announced_bytes = 0
        self.ended = False
        """The last chunk's size has been read: trailers and an empty line follow."""
        self._before = 0
        self._line = b""
        self._skip = 0

    def take(self, data: bytes) -> int:
        """Follow a part of the body; returns how many bytes of it belong to chunks."""
        at = 0
        while at < len(data) and not self.ended:
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
            else:
                at = self._size_line(data, at)
        return at

    def _size_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at) + 1
        stop = end or len(data)
        self._line += data[at:stop]
        found = _CHUNK_SIZE.match(self._line)
        size = int(found[1], 16) if found and found[1] else 0
        self.announced_bytes = self._before + size
        if end:
            self._line = b""
            self._before = self.announced_bytes
            self._skip = size + len(b"\r\n") if size else 0
            self.ended = not size
        return stop


class RequestReader:
    """Reads the requests of one connection; whole requests queue in `requests`.

    `since_s` is the instant at which the present stage began; `waits` means that the client has
    sent a head with `Expect: 100-continue` and sends no body before it gets a 100. `held_bytes` is
    the size of the bodies that came and were not given back.
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
        "_request",
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
        """All connections of a listener share `room` and `heads`."""
        self._room = room
        self.held_bytes = 0
        self._limits = limits
        self._clock = clock
        self._peer = peer
        self._raw = False
        self._request: Request | None = None
        self._headers: list[tuple[bytes, bytes]]
        self._parser = httptools.HttpRequestParser(self)
        self._final = False
        self._heads = heads
        self.requests: deque[Request] = deque()
        self.waits = False
        self._tail = b""
        self._start(Stage.IDLE)

    def feed(self, data: bytes | memoryview) -> int:
        """Read a part of `data`, up to the end of one request; returns the size of that part.

        Raises:
            Refusal: the request is not acceptable; nothing more may be fed.
        """
        if self._final:  # RFC 9112 §9.6: ignore everything after the last request
            return len(data)
        if self._raw:
            return self._feed_raw(data)
        if self.stage is not Stage.IDLE:
            return self._parse(data)
        if not isinstance(data, bytes):
            return self._feed_new(data)
        known = self._heads.again(data, self._peer, self._clock())
        if known is None:
            count = len(self.requests)
            fed = self._feed_new(data)
            if fed == len(data):
                began = self.requests[-1] if len(self.requests) > count else self._request
                self._learn(data, began)
            return fed
        request, missing_bytes = known
        if missing_bytes:
            self._begin_known(request, missing_bytes)
        else:
            self.since_s = request.received_s
            if request.body:
                self._hold(len(request.body))
            self.requests.append(request)
        return len(data)

    def _feed_new(self, data: bytes | memoryview) -> int:
        fed = self._parse(data)
        if self._left and fed < len(data) and not self._raw:
            fed += self._parse(memoryview(data)[fed:])
        return fed

    def _begin_known(self, request: Request, missing_bytes: int) -> None:
        """The head is known and its body is not complete: the parser, which copies, is bypassed."""
        arrived, request.body = request.body, b""
        self._start(Stage.BODY)
        self._request = request
        self._headers = list(request.headers)
        self._left = len(arrived) + missing_bytes
        self._raw = True
        if arrived:
            self.on_body(arrived)

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

    def _learn(self, data: bytes, request: Request | None) -> None:
        """These bytes were a head and, as far as it has come, its body: recognise the head next."""
        framing = self._framing
        if request is None or framing.length is None or framing.waits or not request.keep_alive:
            return
        self._heads.learn(data, self._body_bytes, framing.length, request)

    def _feed_raw(self, data: bytes | memoryview) -> int:
        """A body that does not go through the parser: its parts are kept by reference.

        So are bodies of known heads and of requests for an upgrade, which the parser leaves over.
        """
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
        self._headers = []
        self._head_bytes = 0
        self._fed_bytes = 0
        self._framing = Framing(None, waits=False)
        self._left = 0
        self._raw = False
        self._sizes = ChunkSizes()
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._request = None

    def on_url(self, url: bytes) -> None:
        """Called by the parser, possibly in parts."""
        self._url += url
        self._head_bytes += len(url)
        if self._head_bytes > self._limits.header_bytes:
            raise head_too_large(self._limits.header_bytes)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser; also for trailers, which are dropped."""
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._limits.header_bytes:
            raise head_too_large(self._limits.header_bytes)
        if len(self._headers) >= FIELDS:
            raise too_many_fields(FIELDS)
        if self._request is None:
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
        self._request = Request(
            method,
            path,
            self._headers,
            query=query,
            peer=self._peer,
            received_s=self.since_s,
            version=version,
            keep_alive=self._parser.should_keep_alive(),
        )

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
        """The valid id that the request being read carries."""
        return read_request_id(first(self._headers, REQUEST_ID))

    def drop(self) -> None:
        """Release an incomplete body: nothing more will be fed."""
        if self.stage is Stage.BODY:
            self.give_back(self._body_bytes)
            self._body_bytes = 0
            self._body = []

    def close(self) -> None:
        """Release everything: the connection is gone, nothing more will be fed."""
        self.requests.clear()
        self.give_back(self.held_bytes)
        del self._parser  # it holds callbacks of this reader: break the cycle

    def give_back(self, count_bytes: int) -> None:
        """Release bodies of so many bytes."""
        self.held_bytes -= count_bytes
        self._room.held_bytes -= count_bytes

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._raw:
            return
        request, self._request = self._request, None
        assert request is not None  # the parser has called on_headers_complete
        body = self._body
        if body:
            request.body = body[0] if len(body) == 1 else b"".join(body)
            self._body = []
        self.stage = Stage.IDLE
        self.waits = False
        self._final = not request.keep_alive
        self.requests.append(request)


def _cause(error: httptools.HttpParserCallbackError) -> BaseException:
    """The exception of a callback: a refusal, or a bug that must not be hidden."""
    return error.__context__ if error.__context__ is not None else error
