"""The announced sizes of a chunked body, known before its data has come (RFC 9112 §7.1).

The parser checks the syntax and keeps the sizes to itself, so their lines are read here as well.
"""

import re

_SIZE = re.compile(rb"\s*([0-9a-fA-F]*)")


class ChunkSizes:
    """Follows the framing of one body; `announced_bytes` is the sum of the sizes so far.

    A size counts as soon as its digits have come, also before the end of its line.
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
        found = _SIZE.match(self._line)
        size = int(found[1], 16) if found and found[1] else 0
        self.announced_bytes = self._before + size
        if end:
            self._line = b""
            self._before = self.announced_bytes
            self._skip = size + len(b"\r\n") if size else 0
            self.ended = not size
        return stop
