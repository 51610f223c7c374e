"""Cities and the round trips between them, read from CSV files, and the split into two sets."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeVar

from isochrone.router.errors import ConfigError
from isochrone.router.geo.network import light_rtt_s, prior_rtt_s
from isochrone.router.geo.region import Point, distance_km

T = TypeVar("T")
Split = Literal["tune", "report"]

SAME_CITY_RTT_S = 0.002
"""Between two addresses of one city; no file of pairs between cities has it."""


@dataclass(frozen=True, slots=True)
class City:
    """A city, and how many people live there."""

    name: str
    point: Point
    population: float


def split_of(city: str) -> Split:
    """The set that a city belongs to: `tune` where the first byte of its name's SHA-256 is even.

    Knobs are chosen on one half of the cities and reported on the other, which is never tuned on.
    """
    return "report" if sha256(city.encode()).digest()[0] % 2 else "tune"


def read_cities(path: Path) -> list[City]:
    """The cities of a CSV file with the columns city, Lat, Long and Population.

    Raises:
        ConfigError: it cannot be read, lacks a column, or a line is no city.
    """
    return list(rows(path, ("city", "Lat", "Long", "Population"), _city))


def _city(row: Mapping[str, str]) -> City:
    latitude, longitude = float(row["Lat"]), float(row["Long"])
    population = float(row["Population"])
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180 and population >= 0):
        raise ValueError("it is no place on the globe")
    return City(row["city"], Point(latitude, longitude), population)


class RoundTrips:
    """The least round trips that were measured, either way; in seconds, by two cities' names."""

    def __init__(self, measured_s: Mapping[tuple[str, str], float], unmatched_count: int) -> None:
        self._measured_s = measured_s
        self.unmatched_count = unmatched_count

    def __len__(self) -> int:
        return len(self._measured_s)

    def between(self, a: City, b: City) -> tuple[float, bool]:
        """The round trip in seconds, and whether it was measured: else distance tells it.

        A measurement that is faster than light is a wrong place and is not believed.
        """
        if a.name == b.name:
            return SAME_CITY_RTT_S, True
        away_km = distance_km(a.point, b.point)
        measured_s = self._measured_s.get((a.name, b.name)) or self._measured_s.get(
            (b.name, a.name), 0.0
        )
        if measured_s <= light_rtt_s(away_km):
            return prior_rtt_s(away_km), False
        return measured_s, True


UNMEASURED = RoundTrips({}, 0)
"""Distance tells every round trip."""


def read_round_trips(path: Path, cities: Iterable[str] = ()) -> RoundTrips:
    """The round trips of a CSV file with the columns src_city, dst and min_ms.

    `dst` begins with a city's name (the country follows): the longest known name counts, of
    `cities` and of the file's own sources. Pairs without one are left out and counted.

    Raises:
        ConfigError: it cannot be read, lacks a column, or a line has no time.
    """
    pairs = list(rows(path, ("src_city", "dst", "min_ms"), _pair))
    known = {source for source, _, _ in pairs}.union(cities)
    city_of = {text: _longest_prefix(text, known) for _, text, _ in pairs}
    matched = [(a, b, rtt_s) for a, text, rtt_s in pairs if (b := city_of[text]) is not None]
    measured_s = {(a, b): rtt_s for a, b, rtt_s in matched}
    return RoundTrips(measured_s, len(pairs) - len(matched))


def _pair(row: Mapping[str, str]) -> tuple[str, str, float]:
    rtt_s = float(row["min_ms"]) / 1000
    if not 0 < rtt_s < 60:
        raise ValueError("min_ms is no round trip")
    return row["src_city"], row["dst"], rtt_s


def _longest_prefix(text: str, names: set[str]) -> str | None:
    """The longest of `names` that `text` begins with, whole words only."""
    end = len(text)
    while end > 0:
        if text[:end].rstrip(" ,") in names:
            return text[:end].rstrip(" ,")
        end = text.rfind(" ", 0, end)
    return None


def rows(path: Path, columns: Sequence[str], made: Callable[[Mapping[str, str]], T]) -> Iterator[T]:
    """Each line of a CSV file as whatever `made` makes of it."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            lacking = [name for name in columns if name not in (reader.fieldnames or ())]
            if lacking:
                raise ConfigError(f"{path}: lacks the column {', '.join(lacking)}")
            for row in reader:
                yield _made(path, reader.line_num, row, made)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _made(
    path: Path, line: int, row: Mapping[str, str], made: Callable[[Mapping[str, str]], T]
) -> T:
    try:
        return made(row)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}:{line}: {error}") from error
