"""Agents join, renew, tell and leave here; an address is checked before anything is sent to it."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from urllib.parse import parse_qs

import msgspec

from isochrone.router.errors import BadRequest, Forbidden, IsochroneError, NotFound, Unavailable
from isochrone.router.geo.address import Network, read_address
from isochrone.router.http.descriptors import is_local
from isochrone.router.http.exchange import Exchange
from isochrone.router.http.names import addresses
from isochrone.router.http.service import asynchronous
from isochrone.router.members.address import pin
from isochrone.router.members.membership import Membership
from isochrone.router.members.store import Store
from isochrone.router.process import log
from isochrone.router.process.clock import Clock
from isochrone.router.wire.headers import REQUEST_ID, CallHeaders
from isochrone.router.wire.http import Headers, Request, Response
from isochrone.router.wire.journal import Journal, Kept
from isochrone.router.wire.peer_json import read_json
from isochrone.router.wire.problem import json_response
from isochrone.router.wire.report import (
    Enrolment,
    Name,
    SeenAgent,
    check_wire_version,
    decode_enrolment,
)
from isochrone.router.wire.url import HostPort, parse_url

RESOLVE_S = 2.0
_AGENTS = "/isochrone/agents/"
_log = logging.getLogger("isochrone.router.agents")


class _Named(msgspec.Struct):
    name: Name = "?"


def _name_in(body: bytes) -> str:
    """What an enrolment calls itself, as far as that can be read."""
    try:
        return read_json(body, _Named, "enrolment").name
    except IsochroneError:
        return "?"


class Agents:
    """`POST /isochrone/agents`, `GET` and `DELETE /isochrone/agents/{name}`, and
    `POST /isochrone/journal`.

    `out_of` says why an endpoint takes no traffic; `changed` is called after somebody has joined or
    left.
    """

    def __init__(
        self,
        *,
        membership: Membership,
        store: Store,
        allowed: Sequence[Network],
        client_address: Callable[[str, Headers], str],
        out_of: Callable[[str], str | None],
        changed: Callable[[], None],
        clock: Clock,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._membership = membership
        self._store = store
        self._allowed = allowed
        self._out_of = out_of
        self._changed = changed
        self._clock = clock
        self._refused_lines = log.LineLimit()
        self._client_address = client_address
        self._join = asynchronous(self._enrol, tasks)
        self._part = asynchronous(self._leave, tasks)
        self._hear = asynchronous(self._keep, tasks)

    def enrol(self, exchange: Exchange, headers: CallHeaders, request_id: str) -> None:
        """An agent joins or renews.

        Raises:
            Forbidden: the caller is outside the allowed networks.
        """
        del headers
        try:
            self._check_client(exchange.request)
        except Forbidden as error:
            self._say_refused(exchange.request, error)
            raise
        self._join(exchange, [(REQUEST_ID, request_id.encode())])

    def leave(self, exchange: Exchange, headers: CallHeaders, request_id: str) -> None:
        """An agent leaves.

        Raises:
            Forbidden: the caller is outside the allowed networks.
        """
        del headers
        self._check_client(exchange.request)
        self._part(exchange, [(REQUEST_ID, request_id.encode())])

    def seen(self, exchange: Exchange, headers: CallHeaders, request_id: str) -> Response:
        """How this router sees an agent: for whoever looks for a fault there.

        Raises:
            Forbidden: the caller is outside the allowed networks.
            NotFound: no agent of that name is enrolled.
        """
        del headers, request_id
        self._check_client(exchange.request)
        name = exchange.request.path.removeprefix(_AGENTS)
        member = self._membership.get(name)
        if member is None:
            raise NotFound("no agent of that name is enrolled")
        endpoint = member.endpoint
        seen = SeenAgent(endpoint.name, endpoint.url, endpoint.region, self._out_of(name))
        return json_response(seen)

    def journal(self, exchange: Exchange, headers: CallHeaders, request_id: str) -> None:
        """An agent tells what has happened to it.

        Raises:
            Forbidden: the caller is outside the allowed networks.
        """
        del headers
        self._check_client(exchange.request)
        self._hear(exchange, [(REQUEST_ID, request_id.encode())])

    async def _keep(self, request: Request) -> Response:
        told = read_json(request.body, Journal, "journal")
        check_wire_version(told.wire_version, "journal")
        if self._membership.get(told.name) is None:
            raise NotFound("no agent of that name is enrolled")
        new = await self._store.keep(told.name, told.entries)
        for entry in new:
            fields = {key: value for key, value in msgspec.structs.asdict(entry).items() if value}
            log.event(_log, "agent_told", agent=told.name, **fields)
        return json_response(Kept(len(new)))

    async def _leave(self, request: Request) -> Response:
        name = request.path.removeprefix(_AGENTS)
        instances = parse_qs(request.query).get("instance", [None])
        if not self._membership.leave(name, instances[0]):
            raise NotFound("no agent of that name and instance is enrolled")
        self._changed()
        await self._store.forget(name)
        return json_response({"left": name})

    async def _enrol(self, request: Request) -> Response:
        try:
            return await self._enrolled(request)
        except IsochroneError as error:
            self._say_refused(request, error)
            raise

    def _say_refused(self, request: Request, error: IsochroneError) -> None:
        address = self._client_address(request.peer, request.headers)
        name = _name_in(request.body)
        left_out = self._refused_lines.left_out
        if self._refused_lines.admits((name, address, error.message), self._clock()):
            log.event(
                _log,
                "enrolment_refused",
                level=logging.WARNING,
                agent=name,
                address=address,
                reason=error.message,
                left_out=left_out,
            )

    async def _enrolled(self, request: Request) -> Response:
        enrolment = decode_enrolment(request.body)
        pinned = await self._pinned(enrolment)
        lease = self._membership.enrol(enrolment, pinned.url, self._clock())
        self._changed()
        await self._store.save(enrolment, pinned.url)
        return json_response(lease)

    async def _pinned(self, enrolment: Enrolment) -> HostPort:
        """Where to reach it: the address that it had, while its name cannot be resolved.

        Raises:
            BadRequest: its name cannot be resolved, and it was not enrolled by that name.
            Forbidden: an address lies outside the allowed networks.
        """
        where = parse_url(enrolment.url)
        try:
            found = await addresses(where, RESOLVE_S)
        except OSError as error:
            member = self._membership.get(enrolment.name)
            if is_local(error):
                short = "this router is short of descriptors"
                raise Unavailable(short, retry_after_s=1.0) from error
            if member is None or member.asked_url != enrolment.url:
                raise BadRequest(f"url: {where.host} cannot be resolved") from error
            log.event(_log, "name_not_resolved", level=logging.WARNING, agent=enrolment.name)
            return parse_url(member.endpoint.url)
        return pin(where, found, self._allowed)

    def _check_client(self, request: Request) -> None:
        address = read_address(self._client_address(request.peer, request.headers))
        if address is None or not any(address in network for network in self._allowed):
            raise Forbidden("agents join from enrolment.allowed_networks of this router only")
