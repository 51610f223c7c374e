"""A GeoIP database in memory, and the file that it was read from.

Whoever maintains the file may rename, truncate or overwrite it at any time. A memory map of it
would end the process with SIGBUS at a look-up behind the new end, so its bytes are copied first.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from ipaddress import IPv4Address, IPv6Address
from itertools import islice
from pathlib import Path
from typing import Any

import maxminddb

from isochrone.router.errors import ConfigError
from isochrone.router.geo.address import Address
from isochrone.router.geo.place import UNKNOWN_PLACE, Place, Source
from isochrone.router.geo.region import Point
from isochrone.router.process.regular_file import open_regular

CHECKED = 1 << 16
"""How many networks of a new file are read one by one, and how many addresses are looked up."""
_PLACE_DATABASES = ("city", "country", "enterprise", "location")
"""One of these words stands in the type of every GeoIP database that holds places."""
_REMEDY = "name a GeoIP2 or GeoLite2 City database, or leave geoip_database out"

_Stamp = tuple[int, int, int, int]
"""Device, inode, size and time of the last change (ns): a file with an equal stamp is unchanged."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    reader: maxminddb.Reader
    stamp: _Stamp


class GeoDatabase:
    """A GeoIP database named by the operator.

    `failures` counts look-ups that it broke on; `refused` says why the file that stands there now
    is not in use, None where it is. `find` may be called while `refresh` runs in another thread.
    """

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            ConfigError: it is absent, no regular file, broken, or holds no places.
        """
        self.path = path
        self.failures = 0
        self.refused: str | None = None
        self._loaded = _load(path)
        self._tried = self._seen = self._loaded.stamp

    @property
    def built_s(self) -> float:
        """When the database in use was built, in seconds since 1970."""
        return float(self._loaded.reader.metadata().build_epoch)

    def find(self, address: Address) -> Place:
        """The place of an address; never an exception, whatever the file holds."""
        try:
            return _place(self._loaded.reader.get(address))
        except Exception:  # a file that opens can still be corrupt inside, in any way
            self.failures += 1
            return UNKNOWN_PLACE

    def refresh(self) -> bool:
        """Take up a file that has changed since, once it stays the same from one call to the next.

        Blocks. Returns whether another database is in use now.

        Raises:
            ConfigError: the file cannot be used, told once for each change; the old one stays.
        """
        stamp = _stamp_at(self.path)
        settled, self._seen = stamp == self._seen, stamp
        if not settled or stamp == self._tried:
            return False
        self._tried = stamp
        try:
            loaded = _load(self.path)
            _check(self.path, loaded.reader)
        except ConfigError as error:
            self.refused = error.message
            raise
        self._loaded, self.refused = loaded, None
        return True

    def close(self) -> None:
        """Give the memory back."""
        self._loaded.reader.close()


_ABSENT: _Stamp = (0, 0, 0, 0)


def _stamp_at(path: Path) -> _Stamp:
    try:
        return _stamp(path.stat())
    except OSError:
        return _ABSENT


def _stamp(found: os.stat_result) -> _Stamp:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _load(path: Path) -> _Loaded:
    try:
        data, stamp = _bytes_of(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; {_REMEDY}") from error
    try:
        reader = _opened(data)
    except (maxminddb.InvalidDatabaseError, ValueError, OSError) as error:
        raise ConfigError(f"{path}: is not a usable MaxMind database; {_REMEDY}") from error
    kind = reader.metadata().database_type
    if not any(word in kind.lower() for word in _PLACE_DATABASES):
        reader.close()
        raise ConfigError(f"{path}: a {kind} database holds no places; {_REMEDY}")
    return _Loaded(reader, stamp)


def _bytes_of(path: Path) -> tuple[bytes, _Stamp]:
    with open_regular(path) as file:
        stamp = _stamp(os.fstat(file.fileno()))
        data = file.read()
        if len(data) != stamp[2] or stamp != _stamp(os.fstat(file.fileno())):
            raise ConfigError(f"{path}: changed while it was read")
        return data, stamp


def _opened(data: bytes) -> maxminddb.Reader:
    """A reader over a copy that nothing else can reach.

    The C reader, forty times as fast as the other, opens nothing but a path.
    """
    if not hasattr(os, "memfd_create"):  # not on this platform
        return maxminddb.open_database(BytesIO(data), maxminddb.MODE_FD)
    descriptor = os.memfd_create("geoip", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as copy:
        copy.write(data)
        copy.flush()
        return maxminddb.open_database(f"/proc/self/fd/{descriptor}")


def _check(path: Path, reader: maxminddb.Reader) -> None:
    """Read a whole small database, and of a large one so much that damage is likely to show.

    Raises:
        ConfigError: something in it cannot be read.
    """
    try:
        for _, record in islice(reader, CHECKED):
            _place(record)
        for address in _spread(reader.metadata().ip_version):
            _place(reader.get(address))
    except Exception as error:  # as at a look-up: whatever a damaged file may cause
        reader.close()
        raise ConfigError(f"{path}: is damaged inside: {error}; {_REMEDY}") from error


def _spread(ip_version: int) -> Iterator[Address]:
    """Addresses at equal distances over all of IPv4, and over what is in use of IPv6 (2000::/3)."""
    step = (1 << 32) // CHECKED
    for number in range(CHECKED):
        yield IPv4Address(number * step)
        if ip_version == 6:
            yield IPv6Address((1 << 125) + number * ((1 << 125) // CHECKED))


def _place(record: Any) -> Place:  # noqa: ANN401  # whatever the file holds
    if record is None:
        return UNKNOWN_PLACE
    location, country = record.get("location", {}), record.get("country", {}).get("iso_code")
    latitude, longitude = location.get("latitude"), location.get("longitude")
    known = isinstance(latitude, float) and isinstance(longitude, float)
    point = Point(latitude, longitude) if known else None
    if point is None and country is None:
        return UNKNOWN_PLACE
    return Place(point, country, None, Source.GEOIP)
