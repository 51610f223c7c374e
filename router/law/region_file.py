"""The shape of `regions.yaml`: what its keys are, and which of them are for later versions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, field

from isochrone.router.geo.region import Point
from isochrone.router.process.document import ConfigProblem, Document, KeyPath, Plain
from isochrone.router.process.settings import Settings, structural_problems
from isochrone.router.wire.report import Name

ANY: Literal["any"] = "any"

Latitude = Annotated[float, Meta(ge=-90, le=90, description="degrees, north is positive")]
Longitude = Annotated[float, Meta(ge=-180, le=180, description="degrees, east is positive")]
Country = Annotated[
    str, Meta(pattern=r"^[A-Z]{2}$", description="an ISO 3166-1 code of two capital letters")
]
Names = Annotated[tuple[Name, ...], Meta(min_length=1)]
Require = Annotated[
    Literal["any"] | Names,
    Meta(description="any, or regions, groups and jurisdictions: one of them must hold"),
]
Preference = Annotated[
    float, Meta(ge=0, le=60, description="seconds that a region there is favoured by")
]
Weight = Annotated[
    float,
    Meta(ge=0.01, le=100, description="share of the devices against other tenants' who wait too"),
]


class Location(Settings, frozen=True):
    """A place on the globe."""

    latitude: Latitude
    longitude: Longitude

    @property
    def point(self) -> Point:
        """The same, as the geography has it."""
        return Point(self.latitude, self.longitude)


class RegionEntry(Settings, frozen=True, kw_only=True):
    """A legal and geographic unit: where it is, and whose law holds there."""

    location: Location
    jurisdiction: Name
    zones: tuple[Name, ...] = ()


class NetworkEntry(Settings, frozen=True, kw_only=True):
    """Where the clients of a network are; a region alone gives its location."""

    region: Name | None = None
    location: Location | None = None
    country: Country | None = None


class Rate(Settings, frozen=True, kw_only=True):
    """The request rate of a tenant; see `router.admission.quota`."""

    requests_per_s: Annotated[float, Meta(ge=0.001, le=1e6, description="in the long run")]
    burst: Annotated[int, Meta(ge=1, le=1_000_000, description="requests at once, after a pause")]


class TenantEntry(Settings, frozen=True, kw_only=True):
    """Who asks: its law, the models it may use, its keys, its quota (none: no limit), its share."""

    require: Require
    models: Literal["any"] | Names = ANY
    keys_file: Path | None = None
    quota: Rate | None = None
    weight: Weight = 1.0


class ModelEntry(Settings, frozen=True, kw_only=True):
    """A known model, and its law."""

    require: Require = ANY


class DataClassEntry(Settings, frozen=True, kw_only=True):
    """A kind of data, its law, and the tenants that may say a request is of it."""

    require: Require
    tenants: Literal["any"] | Names


class Match(Settings, frozen=True, kw_only=True):
    """Which requests a rule is for; nothing said means all of them."""

    tenant: Name | Names | None = None


class Rule(Settings, frozen=True, kw_only=True):
    """A law and a taste for the requests that match. The first rule that matches counts."""

    name: Name
    match: Match = Match()
    require: Require = ANY
    prefer: dict[Name, Preference] = field(default_factory=dict)


class RegionFile(Settings, frozen=True, kw_only=True):
    """Regions, tenants and the law that holds between them."""

    regions: Annotated[dict[Name, RegionEntry], Meta(min_length=1)]
    groups: dict[Name, Names] = field(default_factory=dict)
    networks: dict[str, NetworkEntry] = field(default_factory=dict)
    geoip_database: Path | None = None
    trusted_proxies: tuple[str, ...] = ()
    tenants: dict[Name, TenantEntry]
    models: dict[Name, ModelEntry] = field(default_factory=dict)
    data_classes: dict[Name, DataClassEntry] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()


_LATER: tuple[tuple[str, ...], ...] = (
    *(
        ("rules", "*", "match", key)
        for key in ("model", "data_class", "client_country", "client_region", "time_of_day")
    ),
    *(("rules", "*", key) for key in ("ingress", "tiers", "on_unknown_place")),
)
"""Keys of the language that this version knows and does not carry out."""


def structure_problems(document: Document) -> list[ConfigProblem]:
    """Every key and value of a region policy file that cannot stand there."""
    later = list(_not_honoured(document))
    places = {(problem.line, problem.column) for problem in later}
    others = structural_problems(document, RegionFile)
    return [*later, *(one for one in others if (one.line, one.column) not in places)]


def _not_honoured(document: Document) -> Iterator[ConfigProblem]:
    for pattern in _LATER:
        for key in _matching(document.data, pattern):
            message = "is not honoured by this version; take it out, for it would not be obeyed"
            yield document.problem(key, message, code="not_honoured", of_key=True)


def _matching(data: Plain, pattern: tuple[str, ...], at: KeyPath = ()) -> Iterator[KeyPath]:
    if not pattern:
        yield at
        return
    head, rest = pattern[0], pattern[1:]
    if isinstance(data, dict):
        for name in data if head == "*" else data.keys() & {head}:
            yield from _matching(data[name], rest, (*at, name))
    elif isinstance(data, list) and head == "*":
        for index, item in enumerate(data):
            yield from _matching(item, rest, (*at, index))
