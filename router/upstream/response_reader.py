"""Bytes from an endpoint in, events of one attempt out; no I/O."""

import re

import httptools

from isochrone.router.upstream.event import Answer, Cause, Chunk, End, Head, Lost
from isochrone.router.wire.headers import END

HEAD_BYTES = 64 << 10
"""Longest head of an answer, with the interim answers before it."""
_CHUNK_OVERHEAD = 16
"""Most framing bytes for each byte of a chunked body, beside those of a head."""
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CODE = re.compile(rb"[a-z_]{1,32}")
_SWITCHING = 101


class _Malformed(Exception):
    """The bytes are not an answer to the request."""


class ResponseReader:
    """Reads the answers on one connection, one after another.

    `ended`: the answer has had its End or Lost. `reusable`, valid after an End: the connection may
    carry another request.
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
        "_length",
        "_parser",
        "_started",
        "_until_close",
        "ended",
        "reusable",
    )

    def __init__(self) -> None:
        self._parser: httptools.HttpResponseParser | None = None
        """None also while the rest of a body of known length passes by the parser."""
        self._events: list[Answer] = []
        self.begin("GET")

    def begin(self, method: str) -> None:
        """Expect the answer to a new request."""
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        self._head_only = method == "HEAD"
        self._headers: list[tuple[bytes, bytes]] = []
        self._interim = False
        self._started = False
        self._complete = False
        self._end_code = ""
        self._length = -1
        self._chunked = False
        self._until_close = False
        self._fed_bytes = 0
        self._body_bytes = 0
        self.ended = False
        self.reusable = False

    def feed(self, data: bytes) -> list[Answer]:
        """The events in some bytes; an End or a Lost is the last event of an answer."""
        parser = self._parser
        if parser is None:
            return self._feed_rest(data)
        try:
            parser.feed_data(data)
            if not self._complete and (self._chunked or not self._started):
                self._bound_framing(len(data))
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, _Malformed):
                raise  # a defect of ours, which must be seen
            self._fail(str(error.__context__))
        except httptools.HttpParserError as error:
            self._fail(str(error) or "an unexpected change of protocol")
        except _Malformed as error:
            self._fail(str(error))
        events, self._events = self._events, []  # an idle connection keeps no data
        if self._complete:
            self.ended = True
            events.append(End(self._end_code))
        if self._length > self._body_bytes or (self._head_only and self._complete):
            self._parser = None
        return events

    def close(self, *, clean: bool) -> Answer:
        """The last event at the end of the connection; `clean`: the endpoint ended it in order.

        Nothing may be fed after it.
        """
        self._parser = None  # the parser refers to this reader: break the cycle
        if clean and self._until_close:
            return End()
        return Lost(Cause.RESET, "in its answer" if self._started else "before its answer")

    def _feed_rest(self, data: bytes) -> list[Answer]:
        """Pass the body on by reference: its length is known, and the parser would copy it."""
        left = self._length - self._body_bytes
        if len(data) > left:
            data = data[:left]
            self.reusable = False
        self._body_bytes += len(data)
        if len(data) < left:
            return [Chunk(data)]
        self._complete = self.ended = True
        return [Chunk(data), End()]

    def _fail(self, why: str) -> None:
        self.reusable = False
        if not self._complete:
            self.ended = True
            self._events.append(Lost(Cause.MALFORMED, why))

    def _bound_framing(self, fed: int) -> None:
        """Bound what the parser holds: unfinished fields, chunk extensions, trailers."""
        self._fed_bytes += fed
        most = HEAD_BYTES + _CHUNK_OVERHEAD * self._body_bytes
        if self._fed_bytes - self._body_bytes > most:
            raise _Malformed("more header fields than an answer may have")

    def on_message_begin(self) -> None:
        """Called by the parser."""
        if self._complete:  # a second answer to one request
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, for trailers as well; one trailer is read."""
        if not (self._started or self._complete):
            self._headers.append((name.lower(), value.strip(b" \t")))
        elif not self._complete and name.lower() == END and (known := _CODE.fullmatch(value)):
            self._end_code = known[0].decode()

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        parser = self._parser
        if self._complete or parser is None:
            return
        status = parser.get_status_code()
        if 100 <= status < 200 and status != _SWITCHING:
            self._interim = True
            self._headers = []
            return
        if not 200 <= status < 600:
            raise _Malformed(f"status {status}")
        self._check_framing(status, parser.get_http_version())
        self._started = True
        self.reusable = parser.should_keep_alive()
        self._events.append(Head(status, self._headers))
        if self._head_only:
            self._complete = True  # the parser expects a body that will not come

    def _check_framing(self, status: int, version: str) -> None:
        fields = dict(self._headers)
        length, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
        if version not in ("1.1", "1.0"):
            raise _Malformed(f"HTTP/{version}")
        if length is not None:
            if coding is not None or not _LENGTH.fullmatch(length):
                raise _Malformed("content-length")
            self._length = int(length)
        elif coding is None:
            self._until_close = status not in (204, 304)
        elif coding.lower() != b"chunked" or version == "1.0":
            raise _Malformed("transfer-encoding")
        else:
            self._chunked = True

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
