"""What an endpoint tells a router until it was heard, however long the network was away.

Each entry has an id that no other entry of that endpoint ever has: it may come twice, and counts
once.
"""

from typing import Annotated

import msgspec

from isochrone.router.wire.report import Count, Name

ENTRIES = 64
"""The most entries in one message."""
DETAIL_LENGTH = 400
"""The most characters of an entry's text: a full message stays below what a peer may send."""

EntryId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}-[0-9]{1,16}$(?!\n)")]
_Label = Annotated[str, msgspec.Meta(max_length=63)]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Something that has happened; `at_s` is its wall-clock instant, in seconds since 1970.

    `kind` is a word in snake case. `count` is how often, where an entry sums up.
    """

    id: EntryId
    at_s: float
    kind: Name
    model: _Label = ""
    version: _Label = ""
    detail: Annotated[str, msgspec.Meta(max_length=DETAIL_LENGTH)] = ""
    count: Count = 1


class Journal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /isochrone/journal`: entries of one endpoint, oldest first."""

    wire_version: int
    name: Name
    entries: Annotated[tuple[Entry, ...], msgspec.Meta(max_length=ENTRIES)]


class Kept(msgspec.Struct, frozen=True):
    """The answer once all of them are on disk: how many had not come before."""

    new: Count
