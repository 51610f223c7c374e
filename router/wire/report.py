"""What an endpoint says of itself: in full when asked, in brief with every answer.

The brief form travels as the response header `endpoint-load-metrics: JSON {...}` with the field
names of xDS ORCA's `OrcaLoadReport`, so that other balancers can read it too.
"""

from enum import StrEnum
from functools import lru_cache
from operator import attrgetter
from typing import Annotated

import msgspec

from isochrone.router.errors import BadRequest, TooLarge
from isochrone.router.wire.http import Headers, first
from isochrone.router.wire.peer_json import REPORT_BYTES, read_json

WIRE_VERSION = 2
"""2: `HeldModel.active`."""
WIRE_HEADER = b"x-isochrone-wire-version"
"""Who asks for a report says the newest version that it reads; without the field it is 1.

Readers refuse fields that they do not know, so a new field is told to those only that ask for it.
"""
LOAD_HEADER = b"endpoint-load-metrics"
_PREFIX = b"JSON "
_DIGITS = 4

PREFIX_BITS = {4: 24, 6: 48}
"""Clients are told apart by networks of this size, by IP version: nobody's own address is kept."""
MEASUREMENTS = 64
"""The most round trips in one message."""
NO_VERSION = ""
"""Of a model at an endpoint that does not report: nobody can ask for it, so none is made up."""

NAME_WORDS = (
    "letters, digits, dots, dashes and underscores, at most 63, the first a letter or a digit"
)
Name = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$(?!\n)", description=NAME_WORDS)
]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Slots = Annotated[int, msgspec.Meta(ge=0, le=65536)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
RoundTripSeconds = Annotated[float, msgspec.Meta(gt=0, le=60)]
LeaseSeconds = Annotated[float, msgspec.Meta(ge=0.1, le=86400)]


class ModelState(StrEnum):
    """Where a model stands on one endpoint, in the order of its life."""

    ABSENT = "absent"
    COLD = "cold"
    LOADING = "loading"
    WARMING = "warming"
    WARM = "warm"
    DRAINING = "draining"


class HeldModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One model version that an endpoint holds; `load_s` is its last measured cold start.

    `active`: it answers the calls that name no version; None where that is not told.
    """

    name: Name
    version: Name
    state: ModelState
    load_s: Seconds | None = None
    bytes: Count | None = None
    active: bool | None = None


class Enrolment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`POST /isochrone/agents`: an endpoint joins, or renews its lease."""

    wire_version: int
    name: Name
    instance: str
    boot_id: str
    sequence: Count
    url: str
    region: Name
    zone: str = ""
    tier: str = "edge"
    hardware_class: str = "unknown"
    slots: Annotated[int, msgspec.Meta(ge=1, le=65536)]
    models: tuple[HeldModel, ...]


class Lease(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer to an enrolment: how long it holds, and when to renew it."""

    lease_s: LeaseSeconds = 15.0
    renew_s: LeaseSeconds = 5.0


class SeenAgent(msgspec.Struct, frozen=True):
    """`GET /isochrone/agents/{name}`: where a router reaches an agent, and why it does not use it.

    `out` None: it does.
    """

    name: str
    url: str
    region: str
    out: str | None


class Pressure(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an endpoint's machine runs short of, and what the endpoint does about it.

    `memory_used_share` is of the tightest limit, without what the kernel can take back at once;
    `memory_stalled_share` is the share of the last ten seconds in which something waited for
    memory. `lost_lines` counts lines of logs that the disk did not take. `degraded` says in words
    what the endpoint does less well than it should, the first thing it gave up first.
    """

    memory_used_share: Share = 0.0
    memory_stalled_share: Share = 0.0
    disk_free_bytes: Count | None = None
    cores: Count | None = None
    lost_lines: Count = 0
    degraded: tuple[str, ...] = ()


class EndpointReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`GET /isochrone/report`: everything an endpoint says of itself.

    `name` and `region` are the endpoint's own: a router compares them with what it knows.
    `instance` names one process (a replica, behind a cloud ingress) and changes at every start;
    `in_flight` counts what runs and what waits, `queued` only the latter;
    `sequence` grows with every report of that instance; `models_generation` grows whenever a
    model's state changes; `seen` holds the highest `x-isochrone-seq` of every sender.
    """

    wire_version: int
    name: Name
    region: Name
    instance: str
    sequence: Count
    in_flight: Count
    slots: Slots
    queued: Count = 0
    ready: bool
    draining: bool
    models_generation: Count
    models: tuple[HeldModel, ...]
    seen: dict[str, int] = {}
    pressure: Pressure = Pressure()


class CallReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer says of the endpoint that gave it.

    `name` and `region` are the endpoint's own, empty where an older one does not say them.
    `in_flight` counts what runs and what waits; `latency_s` is the recent service time at that;
    `wait_s` and `infer_s` are what this request itself cost; `load_s` is the part of the wait that
    a cold start of the model took, 0 where it was warm or the endpoint does not tell.
    """

    instance: str
    sequence: Count
    in_flight: Count
    slots: Slots
    latency_s: Seconds
    wait_s: Seconds
    infer_s: Seconds
    models_generation: Count
    seq_seen: Count = 0
    load_s: Seconds = 0.0
    name: str = ""
    region: str = ""


class Wake(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /isochrone/wake`: have this model warm soon. `POST /isochrone/sample`: have it answer
    its own warm-up sample, where it is warm.
    """

    model: Name
    version: Name | None = None


class Waking(msgspec.Struct, frozen=True):
    """The answer to a wake; `expected_s` is the time to warm, None where that is unknown."""

    model: str
    version: str
    state: ModelState
    expected_s: Seconds | None = None


class Measurement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A round trip to an endpoint, measured by `client`, or from it; None: by who tells it."""

    endpoint: Name
    rtt_s: RoundTripSeconds
    client: Annotated[str, msgspec.Meta(max_length=64)] | None = None


class Measurements(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /isochrone/measurements`: round trips between clients and endpoints."""

    samples: Annotated[tuple[Measurement, ...], msgspec.Meta(max_length=MEASUREMENTS)]


class _Orca(msgspec.Struct):
    application_utilization: float
    named_metrics: dict[str, float]
    instance: str
    name: str = ""
    region: str = ""


_TEXTS = ("instance", "name", "region")
_NUMBERS = tuple(f for f in CallReport.__struct_fields__ if f not in _TEXTS)
_numbers_of = attrgetter(*_NUMBERS)
_NAMED = ",".join(f'"{name}":%r' for name in _NUMBERS)
_TOLD = ",".join(f'"{name}":%s' for name in _TEXTS)
_ORCA = f'JSON {{"application_utilization":%r,"named_metrics":{{{_NAMED}}},{_TOLD}}}'
"""Goes with every answer, and is filled in faster than it is encoded."""
_quoted = lru_cache(maxsize=256)(lambda text: msgspec.json.encode(text).decode())


def encode_call_report(report: CallReport) -> bytes:
    """The value of the `endpoint-load-metrics` header."""
    utilization = report.in_flight / max(1, report.slots)
    texts = _quoted(report.instance), _quoted(report.name), _quoted(report.region)
    told = _ORCA % (utilization, *_numbers_of(report), *texts)
    return told.encode()


def decode_call_report(value: bytes) -> CallReport | None:
    """The report in a header value; None where it is not one of ours (never an error)."""
    if not value.startswith(_PREFIX):
        return None
    try:
        orca = read_json(value[len(_PREFIX) :], _Orca, "load report")
        texts = {"instance": orca.instance, "name": orca.name, "region": orca.region}
        fields = {**orca.named_metrics, **texts}
        return msgspec.convert(fields, CallReport, strict=False)
    except (BadRequest, TooLarge, msgspec.ValidationError):
        return None


def decode_endpoint_report(body: bytes) -> EndpointReport | None:
    """A full report; None where the body is not one that this wire version understands."""
    try:
        report = read_json(body, EndpointReport, "report", most_bytes=REPORT_BYTES)
    except (BadRequest, TooLarge):
        return None
    return report if abs(report.wire_version - WIRE_VERSION) <= 1 else None


def told_to(headers: Headers, report: EndpointReport) -> EndpointReport:
    """A report without the fields that the version in a request's `headers` does not know.

    The same goes for every message: a field that version N adds has a default, is not encoded at
    its default, and is put back to it here for whoever reads less than N.
    """
    asked = first(headers, WIRE_HEADER) or b""
    if asked.isdigit() and len(asked) <= _DIGITS and int(asked) >= WIRE_VERSION:
        return report
    models = tuple(msgspec.structs.replace(model, active=None) for model in report.models)
    return msgspec.structs.replace(report, wire_version=1, models=models)


def decode_waking(body: bytes) -> Waking | None:
    """The answer to a wake; None where the body is none."""
    try:
        return read_json(body, Waking, "waking")
    except (BadRequest, TooLarge):
        return None


def decode_enrolment(body: bytes) -> Enrolment:
    """An enrolment.

    Raises:
        BadRequest: a field is missing, unknown or out of range, or the wire version is too far off.
        TooLarge: it is over a mebibyte.
    """
    enrolment = read_json(body, Enrolment, "enrolment", most_bytes=REPORT_BYTES)
    check_wire_version(enrolment.wire_version, "enrolment")
    return enrolment


def check_wire_version(version: int, what: str) -> None:
    """Messages of the version before and after ours are understood.

    Raises:
        BadRequest: this one is too far off.
    """
    if abs(version - WIRE_VERSION) > 1:
        raise BadRequest(
            f"{what}: wire_version {version} is too far from {WIRE_VERSION}; upgrade the older side"
        )


def version_order(version: str) -> tuple[tuple[int, int | str], ...]:
    """A sort key under which `10` comes after `9`, and `1.10` after `1.9`."""
    return tuple((1, int(part)) if part.isdecimal() else (0, part) for part in version.split("."))
