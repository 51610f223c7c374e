"""Bytes from an endpoint in, events of one try out; no I/O."""

import re

import httptools

from isochrone.router.upstream.event import Answer, Cause, Chunk, End, Head, Lost
from isochrone.router.wire.headers import END

HEAD_BYTES = 64 << 10
"""Longest head of an answer, interim ones before it included."""
_CHUNK_OVERHEAD = 16
"""Framing bytes that go with each byte of a chunked body at most, beside those of a head."""
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CODE = re.compile(rb"[a-z_]{1,32}")
_SWITCHING = 101


class _Malformed(Exception):
    """What came is not an answer to what was asked."""


class ResponseReader:
    """Reads the answers on one connection, one after another.

    `reusable` says, after an End, that the connection may carry another request.
    """

    __slots__ = (
        "_body_bytes",
        "_chunked",
        "_complete",
        "_end_code",
        "_events",
        "_fed_bytes",
        "_head_only",
        "_headers",
        "_interim",
        "_parser",
        "_spent",
        "_started",
        "_until_close",
        "reusable",
    )

    def __init__(self) -> None:
        self._spent = True
        self._events: list[Answer] = []
        self.begin("GET")

    def begin(self, method: str) -> None:
        """A request has been sent: its answer is next."""
        if self._spent:
            self._parser = httptools.HttpResponseParser(self)
        self._spent = False
        self._head_only = method == "HEAD"
        self._headers: list[tuple[bytes, bytes]] = []
        self._interim = False
        self._started = False
        self._complete = False
        self._end_code = ""
        self._chunked = False
        self._until_close = False
        self._fed_bytes = 0
        self._body_bytes = 0
        self.reusable = False

    def feed(self, data: bytes) -> list[Answer]:
        """What some bytes mean; an End or a Lost is the last event of an answer."""
        events: list[Answer] = []
        self._events = events
        try:
            self._parser.feed_data(data)
            self._account(len(data))
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, _Malformed):
                raise  # a mistake of ours, which must be seen
            self._fail(str(error.__context__))
        except httptools.HttpParserError as error:
            self._fail(str(error) or "a change of protocol that nobody asked for")
        except _Malformed as error:
            self._fail(str(error))
        if self._complete:
            events.append(End(self._end_code))
        return events

    def close(self, *, clean: bool) -> Answer:
        """What the end of the connection means; `clean`: the endpoint has said that it is one.

        Nothing more may be fed.
        """
        del self._parser  # it calls this reader: either keeps the other
        if clean and self._until_close:
            return End()
        return Lost(Cause.RESET, "in its answer" if self._started else "before its answer")

    def _fail(self, why: str) -> None:
        self.reusable = False
        if not self._complete:
            self._events.append(Lost(Cause.MALFORMED, why))

    def _account(self, fed: int) -> None:
        """Bound what the parser keeps to itself: unfinished fields, chunk extensions, trailers."""
        if self._complete or (self._started and not self._chunked):
            return
        self._fed_bytes += fed
        most = HEAD_BYTES + _CHUNK_OVERHEAD * self._body_bytes
        if self._fed_bytes - self._body_bytes > most:
            raise _Malformed("more header fields than an answer may have")

    def on_message_begin(self) -> None:
        """Called by the parser."""
        if self._complete:  # a second answer to one request
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser; also for trailers, of which one counts."""
        if not (self._started or self._complete):
            self._headers.append((name.lower(), value.strip(b" \t")))
        elif not self._complete and name.lower() == END and (known := _CODE.fullmatch(value)):
            self._end_code = known[0].decode()

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if self._complete:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != _SWITCHING:
            self._interim = True
            self._headers = []
            return
        if not 200 <= status < 600:
            raise _Malformed(f"status {status}")
        self._check_framing(status)
        self._started = True
        self.reusable = self._parser.should_keep_alive()
        self._events.append(Head(status, self._headers))
        if self._head_only:
            self._complete = True
            self._spent = True  # the parser waits for a body that will not come

    def _check_framing(self, status: int) -> None:
        fields = dict(self._headers)
        length, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise _Malformed(f"HTTP/{version}")
        if length is not None and (coding is not None or not _LENGTH.fullmatch(length)):
            raise _Malformed("content-length")
        if coding is not None and (coding.lower() != b"chunked" or version == "1.0"):
            raise _Malformed("transfer-encoding")
        self._chunked = coding is not None
        self._until_close = length is None and coding is None and status not in (204, 304)

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        if self._complete:
            self.reusable = False
            return
        self._body_bytes += len(data)
        self._events.append(Chunk(data))

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._interim:
            self._interim = False
        else:
            self._complete = True
