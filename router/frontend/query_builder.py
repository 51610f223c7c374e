"""From a request's header fields to a `Query`: the tenant, the law, the deadline."""

from collections.abc import Callable, Collection

from msgspec.structs import replace

from isochrone.router.errors import BadRequest, NotFound, Unavailable
from isochrone.router.fleet.ledger import Ledger
from isochrone.router.law.region_policy import RegionPolicy
from isochrone.router.members.membership import Membership
from isochrone.router.policy.query import Query
from isochrone.router.process.clock import Clock
from isochrone.router.wire.headers import CallHeaders

_LONGEST_NAME = 128
_READING = frozenset({"", "ready"})
"""Actions that change nothing (RFC 9110 §9.2.2)."""


class QueryBuilder:
    """Makes queries under one region policy, for the models that exist."""

    def __init__(
        self,
        law: RegionPolicy,
        ledger: Ledger,
        membership: Membership,
        configured_models: frozenset[str],
        clock: Clock,
        *,
        unsettled_s: Callable[[], float] = lambda: 0.0,
        once: Collection[str] = (),
        explain: bool = False,
    ) -> None:
        """`unsettled_s`: for how long agents may still join that hold an unknown model.

        `once` are the models whose calls must not be repeated; `explain`: explain every decision.
        """
        self.law = law
        self._ledger = ledger
        self._membership = membership
        self._configured = configured_models | law.known_models
        self._clock = clock
        self._unsettled_s = unsettled_s
        self._once = once
        self._explain = explain

    def models(self, headers: CallHeaders) -> list[str]:
        """Every known model that the caller may use.

        A model is known that is configured, held by an endpoint, or was enrolled in the last day.

        Raises:
            BadRequest: two keys name two tenants.
            Unauthenticated: a key is unknown.
        """
        tenant = self._tenant(headers)
        known = self._configured.union(self._ledger.models(), self._membership.known())
        return sorted(model for model in known if self.law.may_use(tenant, model))

    def pattern(
        self, headers: CallHeaders, model: str, version: str | None, action: str = "infer"
    ) -> Query:
        """What all requests with these header fields for this model ask: see `query`.

        Raises:
            BadRequest: a name is not one, or a header field cannot be honoured.
            Unauthenticated, Forbidden, Unlawful: as the region policy says.
        """
        tenant = self._tenant(headers)
        if not model.isascii() or len(model) > _LONGEST_NAME:
            raise BadRequest("a model's name is ASCII, and not longer than 128 characters")
        ruling = self.law.rule(
            tenant, model, regions=headers.regions, data_class=headers.data_class
        )
        return Query(
            request_id="",
            model=model,
            version=version,
            action=action,
            now_s=0.0,
            deadline_s=0.0,
            tenant=tenant,
            rule=ruling.rule,
            required_regions=ruling.required_regions,
            requirement=ruling.requirement,
            preferred=ruling.preferred,
            priority=headers.priority,
            repeatable=headers.idempotent or model not in self._once or action in _READING,
            explain=headers.explain or self._explain,
        )

    def query(
        self, pattern: Query, timeout_s: float, request_id: str, body_bytes: int = 0
    ) -> Query:
        """One request like `pattern`.

        Raises:
            NotFound: the model, or this version of it, is unknown.
            Unavailable: the same, while agents may still join.
        """
        model, version = pattern.model, pattern.version
        held = self._ledger.candidates(model, None)
        if not (held or model in self._configured or self._membership.knows(model)):
            raise self._unknown(f"model {model} is unknown")
        if version is not None and held and not self._ledger.candidates(model, version):
            raise self._unknown(f"model {model} has no version {version}")
        now_s = self._clock()
        return replace(
            pattern,
            request_id=request_id,
            now_s=now_s,
            deadline_s=now_s + timeout_s,
            body_bytes=body_bytes,
        )

    def _tenant(self, headers: CallHeaders) -> str:
        tenant = self.law.tenant_of(headers.key)
        if headers.second_key is not None and self.law.tenant_of(headers.second_key) != tenant:
            raise BadRequest("authorization and x-api-key name two tenants; send one of them")
        return tenant

    def _unknown(self, text: str) -> NotFound | Unavailable:
        wait_s = self._unsettled_s()
        if wait_s:
            return Unavailable(f"{text} so far; agents may still join", retry_after_s=wait_s)
        return NotFound(text)
