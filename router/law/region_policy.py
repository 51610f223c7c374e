"""The law and the taste that hold for one request, from a region policy file; it fails closed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Literal

import msgspec

from isochrone.router.errors import BadRequest, ConfigError, Forbidden, Unauthenticated, Unlawful
from isochrone.router.geo.address import PrefixTable
from isochrone.router.geo.database import GeoDatabase
from isochrone.router.geo.locate import Locator, trusted_proxies
from isochrone.router.geo.place import Place, Source
from isochrone.router.geo.region import Regions
from isochrone.router.law.region_check import (
    contradictions_in,
    matched_tenants,
    problems_of,
    read_network,
    regions_in,
)
from isochrone.router.law.region_file import (
    ANY,
    DataClassEntry,
    NetworkEntry,
    Rate,
    RegionFile,
    Rule,
    structure_problems,
)
from isochrone.router.law.tenants import Tenants, read_keys
from isochrone.router.process.document import (
    ConfigProblem,
    Document,
    SettingsError,
    did_you_mean,
    read_document,
)
from isochrone.router.process.settings import attempted, readable_part

_KEPT_RULINGS = 2048
_NO_RULE = Rule(name="none")

_Law = tuple[Literal["any"] | Sequence[str], str]
"""What is required, and who says so."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What holds for one request.

    `required_regions` None: every region is lawful. `requirement` says in words what is required
    and by whom. `preferred` holds the seconds that a region is favoured by.
    """

    rule: str
    required_regions: frozenset[str] | None
    requirement: str
    preferred: Mapping[str, float] = field(default_factory=dict)


class RegionPolicy:
    """One region policy, never changed: who asks, where from, and which regions may answer.

    `fingerprint` is the SHA-256 of the file's content, whatever its layout and comments;
    `known_models` are those that it names. `quotas` hold the tenants that have one; `weights` hold
    every tenant's share. `contradictions` are laws of the file that no region satisfies together.
    """

    def __init__(
        self,
        file: RegionFile,
        tenants: Tenants,
        database: GeoDatabase | None,
        fingerprint: str,
        contradictions: Sequence[ConfigProblem] = (),
    ) -> None:
        """From a file without problems; see `from_file`."""
        self.fingerprint = fingerprint
        self.contradictions = tuple(contradictions)
        self.regions = regions_in(file)
        self.locator = _locator(file, database)
        self.known_models = _named_models(file)
        self.quotas: Mapping[str, Rate] = {
            name: entry.quota for name, entry in file.tenants.items() if entry.quota is not None
        }
        self.weights: Mapping[str, float] = {
            name: entry.weight for name, entry in file.tenants.items()
        }
        self._file = file
        self.tenant_of = tenants.tenant_of
        self._rules = {tenant: _first_match(file, tenant) for tenant in file.tenants}
        self._kept = lru_cache(maxsize=_KEPT_RULINGS)(self._ruling)

    @classmethod
    def from_file(cls, path: Path) -> "RegionPolicy":
        """Read `regions.yaml`, with the keys files and the GeoIP database that it names.

        Raises:
            SettingsError: (a ConfigError) it cannot be used; one line for each problem.
        """
        document = read_document(path)
        problems = structure_problems(document)
        file = readable_part(document, RegionFile)
        if file is None:
            raise SettingsError(problems)
        problems += problems_of(file, document, problems)
        contradictions = contradictions_in(file, document)
        named = {name: entry.keys_file for name, entry in file.tenants.items()}
        files = {name: keys for name, keys in named.items() if keys is not None}
        tenants, unread = attempted(lambda: read_keys(files))
        geoip, unusable = attempted(lambda: _database(file, document))
        problems += [*unread, *unusable]
        if problems or tenants is None:
            if geoip is not None:
                geoip.close()
            raise SettingsError([*problems, *contradictions])
        return cls(file, tenants, geoip, _fingerprint(document), contradictions)

    def may_use(self, tenant: str, model: str) -> bool:
        """Whether a tenant's own list of models has this one."""
        entry = self._file.tenants.get(tenant)
        return entry is not None and (entry.models == ANY or model in entry.models)

    def rule(
        self,
        tenant: str,
        model: str,
        *,
        regions: frozenset[str] | None = None,
        data_class: str | None = None,
    ) -> Ruling:
        """What the laws of tenant, model, data class, rule and request allow together.

        `regions` are the names by which the request narrows the rest; it never widens.

        Raises:
            Unauthenticated: there is no such tenant.
            Forbidden: the tenant may not use the model, or not set the data class.
            BadRequest: the data class, or one of the request's regions, is unknown.
            Unlawful: no region satisfies all of them.
        """
        entry = self._file.tenants.get(tenant)
        if entry is None:
            raise Unauthenticated("there is no such tenant")
        if not self.may_use(tenant, model):
            raise Forbidden(f"tenant {tenant} may not use this model")
        named = model if model in self._file.models else ""  # all others are alike to the law
        return self._kept(tenant, named, regions, data_class)

    def _ruling(
        self, tenant: str, model: str, regions: frozenset[str] | None, data_class: str | None
    ) -> Ruling:
        rule = self._rules[tenant]
        required: frozenset[str] | None = None
        sources: dict[str, list[str]] = {}
        for names, source in self._laws(tenant, model, regions, data_class):
            if names == ANY:
                continue
            lawful = self.regions.resolve(names)
            required = lawful if required is None else required & lawful
            sources.setdefault(" or ".join(names), []).append(source)
        requirement = _in_words(sources)
        if required is not None and not required:
            raise Unlawful(f"no region satisfies {requirement}")
        return Ruling(rule.name, required, requirement, _preferred(rule, self.regions))

    def _laws(
        self, tenant: str, model: str, regions: frozenset[str] | None, data_class: str | None
    ) -> Iterator[_Law]:
        yield self._file.tenants[tenant].require, f"tenant {tenant}"
        if model:
            yield self._file.models[model].require, f"model {model}"
        if data_class is not None:
            yield self._data_class(tenant, data_class).require, f"data class {data_class}"
        rule = self._rules[tenant]
        yield rule.require, f"rule {rule.name}"
        if regions is not None:
            yield sorted(regions), "request"

    def _data_class(self, tenant: str, name: str) -> DataClassEntry:
        entry = self._file.data_classes.get(name)
        if entry is None:
            known = ", ".join(self._file.data_classes) or "none"
            hint = did_you_mean(name, self._file.data_classes) or f"known: {known}"
            raise BadRequest(f"unknown data class {name[:64]!r}; {hint}")
        if entry.tenants != ANY and tenant not in entry.tenants:
            raise Forbidden(f"tenant {tenant} may not set the data class {name}")
        return entry


def region_problems(path: Path) -> list[ConfigProblem]:
    """Everything that is wrong in a region policy file; empty where nothing is."""
    policy, problems = attempted(lambda: RegionPolicy.from_file(path))
    if policy is None:
        return problems
    policy.locator.close()
    return list(policy.contradictions)


def _first_match(file: RegionFile, tenant: str) -> Rule:
    for rule in file.rules:
        tenants = matched_tenants(rule.match)
        if tenants is None or tenant in tenants:
            return rule
    return _NO_RULE


def _in_words(sources: Mapping[str, Sequence[str]]) -> str:
    """`eu (tenant acme; rule eu) and IE or US (request)`."""
    return " and ".join(f"{names} ({'; '.join(who)})" for names, who in sources.items()) or ANY


def _preferred(rule: Rule, regions: Regions) -> dict[str, float]:
    """Seconds by region; where several names mean one region, the name with the fewest counts."""
    taste = [(regions.resolve([name]), seconds) for name, seconds in rule.prefer.items()]
    taste.sort(key=lambda one: -len(one[0]))
    return {name: seconds for members, seconds in taste for name in members}


def _named_models(file: RegionFile) -> frozenset[str]:
    lists = (entry.models for entry in file.tenants.values() if entry.models != ANY)
    return frozenset(file.models).union(*lists)


def _locator(file: RegionFile, database: GeoDatabase | None) -> Locator:
    places = [(read_network(cidr), _place(file, entry)) for cidr, entry in file.networks.items()]
    proxies = trusted_proxies(read_network(cidr) for cidr in file.trusted_proxies)
    return Locator(PrefixTable(places), proxies, database)


def _place(file: RegionFile, entry: NetworkEntry) -> Place:
    location = entry.location
    if location is None and entry.region is not None:
        location = file.regions[entry.region].location
    point = None if location is None else location.point
    return Place(point, entry.country, entry.region, Source.NETWORKS)


def _database(file: RegionFile, document: Document) -> GeoDatabase | None:
    if file.geoip_database is None:
        return None
    try:
        return GeoDatabase(file.geoip_database)
    except ConfigError as error:
        problem = document.problem(("geoip_database",), f"cannot be used: {error}")
        raise SettingsError([problem]) from error


def _fingerprint(document: Document) -> str:
    return sha256(msgspec.json.encode(document.data, order="deterministic")).hexdigest()
