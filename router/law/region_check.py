"""What a region policy file must mean beyond its shape: every name known, every rule reachable."""

from collections.abc import Iterator, Mapping, Sequence, Sized
from ipaddress import ip_network

from isochrone.router.geo.address import Network
from isochrone.router.geo.region import Region, Regions
from isochrone.router.law.region_file import ANY, Match, RegionFile, Require
from isochrone.router.law.tenants import DEFAULT_TENANT
from isochrone.router.process.document import (
    ConfigProblem,
    Document,
    KeyPath,
    Plain,
    did_you_mean,
    listed,
)


def regions_in(file: RegionFile) -> Regions:
    """The regions, groups and jurisdictions of a file."""
    regions = (
        Region(name, entry.location.point, entry.jurisdiction, entry.zones)
        for name, entry in file.regions.items()
    )
    return Regions(regions, file.groups)


def problems_of(
    file: RegionFile, document: Document, structural: Sequence[ConfigProblem] = ()
) -> list[ConfigProblem]:
    """Everything in a file that has no meaning, each with its place.

    `file` may be a part of the document, without the values that are `structural` problems: what
    could follow from their absence is no problem of its own.
    """
    doubtful = set(_doubtful(file, document.data))
    return [
        problem
        for problem in _Check(file, document).all()
        if problem.code not in doubtful
        and not any(one.key.startswith(problem.key) for one in structural)
    ]


def contradictions_in(file: RegionFile, document: Document) -> list[ConfigProblem]:
    """Laws that the file itself brings together and that no region satisfies.

    They are obeyed (each such request is refused), but hardly meant.
    """
    if set(_doubtful(file, document.data)):
        return []
    return list(_Check(file, document).contradictions())


def _doubtful(file: RegionFile, data: Plain) -> Iterator[str]:
    """The codes of problems that an entry which is left out could cause."""
    sections: tuple[tuple[str, str, Sized], ...] = (
        ("unknown_region", "regions", file.regions),
        ("unknown_region", "groups", file.groups),
        ("unknown_tenant", "tenants", file.tenants),
        ("unreachable", "rules", file.rules),
    )
    for code, key, kept in sections:
        whole = data.get(key) if isinstance(data, dict) else None
        if isinstance(whole, dict | list) and len(whole) > len(kept):
            yield code


class _Check:
    """One reading of one file."""

    def __init__(self, file: RegionFile, document: Document) -> None:
        self._file = file
        self._document = document
        self._regions = regions_in(file)

    def all(self) -> Iterator[ConfigProblem]:
        yield from self._names()
        yield from self._groups()
        yield from self._networks()
        yield from self._tenants()
        yield from self._models_and_classes()
        yield from self._rules()

    def _problem(
        self,
        at: KeyPath,
        message: str,
        code: str,
        suggestion: str | None = None,
        *,
        of_key: bool = False,
    ) -> ConfigProblem:
        return self._document.problem(at, message, code=code, suggestion=suggestion, of_key=of_key)

    def _names(self) -> Iterator[ConfigProblem]:
        """A name that means two things would make a law that means two things."""
        jurisdictions = {entry.jurisdiction for entry in self._file.regions.values()}
        taken = jurisdictions | {ANY}
        for name, entry in self._file.regions.items():
            if name in taken:
                text = "is taken: a region needs another name than a jurisdiction or 'any'"
                yield self._problem(("regions", name), text, "name_taken", of_key=True)
            if entry.jurisdiction == ANY:
                at = ("regions", name, "jurisdiction")
                yield self._problem(at, "must not be 'any', which stands for all", "name_taken")
        for name in self._file.groups:
            if name in taken or name in self._file.regions:
                text = "is taken: a group needs another name than a region, jurisdiction or 'any'"
                yield self._problem(("groups", name), text, "name_taken", of_key=True)

    def _groups(self) -> Iterator[ConfigProblem]:
        for group, members in self._file.groups.items():
            yield from self._each_known(("groups", group), members, self._file.regions, "region")

    def _networks(self) -> Iterator[ConfigProblem]:
        for cidr, entry in self._file.networks.items():
            at: KeyPath = ("networks", cidr)
            yield from self._cidr(at, cidr, of_key=True)
            if entry.region is None and entry.location is None and entry.country is None:
                yield self._problem(at, "must have a region, location or country", "missing_key")
            if entry.region is not None:
                yield from self._known((*at, "region"), entry.region, self._file.regions, "region")
        for index, cidr in enumerate(self._file.trusted_proxies):
            yield from self._cidr(("trusted_proxies", index), cidr)

    def _cidr(self, at: KeyPath, cidr: str, *, of_key: bool = False) -> Iterator[ConfigProblem]:
        try:
            read_network(cidr)
        except ValueError as error:
            text = f"must be a network such as 192.0.2.0/24 or 2001:db8::/32: {error}"
            yield self._problem(at, text, "invalid_network", of_key=of_key)

    def _tenants(self) -> Iterator[ConfigProblem]:
        if DEFAULT_TENANT not in self._file.tenants:
            text = "must have an entry: callers without a key are this tenant, and its law is to be"
            text += " stated (require: any allows every region)"
            yield self._problem(("tenants", DEFAULT_TENANT), text, "missing_key")
        for name, tenant in self._file.tenants.items():
            yield from self._law(("tenants", name, "require"), tenant.require)

    def _models_and_classes(self) -> Iterator[ConfigProblem]:
        for name, model in self._file.models.items():
            yield from self._law(("models", name, "require"), model.require)
        for name, data_class in self._file.data_classes.items():
            yield from self._law(("data_classes", name, "require"), data_class.require)
            if data_class.tenants != ANY:
                at = ("data_classes", name, "tenants")
                yield from self._each_known(at, data_class.tenants, self._file.tenants, "tenant")

    def _rules(self) -> Iterator[ConfigProblem]:
        seen: dict[str, int] = {}
        covered: dict[str | None, int] = {}  # tenant (None: all) to the first rule for it
        for index, rule in enumerate(self._file.rules):
            at: KeyPath = ("rules", index)
            if rule.name in seen:
                text = f"must differ from that of rules[{seen[rule.name]}]"
                yield self._problem((*at, "name"), text, "name_taken")
            seen.setdefault(rule.name, index)
            yield from self._law((*at, "require"), rule.require)
            yield from self._preferences((*at, "prefer"), tuple(rule.prefer))
            yield from self._match((*at, "match", "tenant"), rule.match.tenant)
            yield from self._reachable(at, matched_tenants(rule.match) or (None,), covered)

    def _match(self, at: KeyPath, tenant: str | Sequence[str] | None) -> Iterator[ConfigProblem]:
        if isinstance(tenant, str):
            yield from self._known(at, tenant, self._file.tenants, "tenant")
        elif tenant is not None:
            yield from self._each_known(at, tenant, self._file.tenants, "tenant")

    def _preferences(self, at: KeyPath, names: Sequence[str]) -> Iterator[ConfigProblem]:
        for name in names:
            if self._regions.members(name) is None:
                yield self._unknown((*at, name), name, self._regions.known, of_key=True)

    def _reachable(
        self, at: KeyPath, tenants: Sequence[str | None], covered: dict[str | None, int]
    ) -> Iterator[ConfigProblem]:
        """The first match counts, so a rule behind others that take all it is for says nothing."""
        firsts = {covered.get(None, covered.get(tenant)) for tenant in tenants}
        if None not in firsts:
            before = listed(sorted(f"rules[{first}]" for first in firsts))
            text = f"can never match: {before} stands before it and matches all that it is for"
            yield self._problem(at, text, "unreachable")
        for tenant in tenants:
            covered.setdefault(tenant, int(at[-1]))

    def contradictions(self) -> Iterator[ConfigProblem]:
        for name, tenant in self._file.tenants.items():
            index = next(
                (i for i, r in enumerate(self._file.rules) if _is_for(r.match, name)), None
            )
            laws = {f"tenant {name}": tenant.require}
            if index is not None:
                rule = self._file.rules[index]
                laws[f"rule {rule.name}"] = rule.require
                yield from self._none_left(("rules", index, "require"), laws)
            models = () if tenant.models == ANY else tenant.models
            for model in models:
                if model in self._file.models:
                    both = {**laws, f"model {model}": self._file.models[model].require}
                    yield from self._none_left(("models", model, "require"), both)
            for kind, entry in self._file.data_classes.items():
                if entry.tenants != ANY and name in entry.tenants:
                    both = {**laws, f"data class {kind}": entry.require}
                    yield from self._none_left(("data_classes", kind, "require"), both)

    def _none_left(self, at: KeyPath, laws: Mapping[str, Require]) -> Iterator[ConfigProblem]:
        left: frozenset[str] | None = None
        for law in laws.values():
            if law == ANY:
                continue
            members = [self._regions.members(name) for name in law]
            lawful = frozenset().union(*(one for one in members if one is not None))
            if None in members or (left is not None and not left):
                return  # an unknown name, or a contradiction that is told elsewhere
            left = lawful if left is None else left & lawful
        if left is not None and not left:
            who = " and ".join(f"{name} ({_said(law)})" for name, law in laws.items())
            text = f"leaves no region: {who} have none in common, so every such request is refused"
            yield self._problem(at, text, "contradiction")

    def _law(self, at: KeyPath, law: Require) -> Iterator[ConfigProblem]:
        if law == ANY:
            return
        for index, name in enumerate(law):
            if self._regions.members(name) is None:
                yield self._unknown((*at, index), name, self._regions.known)

    def _unknown(
        self, at: KeyPath, name: str, known: Sequence[str], *, of_key: bool = False
    ) -> ConfigProblem:
        text = f"must be a region, jurisdiction or group ({', '.join(known)}), not {name!r}"
        hint = did_you_mean(name, known)
        return self._problem(at, text, "unknown_region", hint, of_key=of_key)

    def _each_known(
        self, at: KeyPath, names: Sequence[str], known: Mapping[str, object], what: str
    ) -> Iterator[ConfigProblem]:
        for index, name in enumerate(names):
            yield from self._known((*at, index), name, known, what)

    def _known(
        self, at: KeyPath, name: str, known: Mapping[str, object], what: str
    ) -> Iterator[ConfigProblem]:
        if name not in known:
            text = f"must be a {what} ({', '.join(known)}), not {name!r}"
            yield self._problem(at, text, f"unknown_{what}", did_you_mean(name, known))


def _is_for(match: Match, tenant: str) -> bool:
    tenants = matched_tenants(match)
    return tenants is None or tenant in tenants


def _said(law: Require) -> str:
    return law if isinstance(law, str) else " or ".join(law)


def matched_tenants(match: Match) -> tuple[str, ...] | None:
    """The tenants that a rule is for; None: all."""
    return (match.tenant,) if isinstance(match.tenant, str) else match.tenant


def read_network(cidr: str) -> Network:
    """A network.

    Raises:
        ValueError: it is none, or has host bits set.
    """
    return ip_network(cidr)
