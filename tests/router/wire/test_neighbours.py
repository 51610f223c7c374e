"""Neighbouring wire versions, both ways: copies of the old schemas, as strict as they were."""

import msgspec
import pytest

from isochrone.router.wire.report import (
    WIRE_HEADER,
    WIRE_VERSION,
    EndpointReport,
    HeldModel,
    ModelState,
    decode_endpoint_report,
    decode_enrolment,
    told_to,
)


class HeldModel1(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    version: str
    state: ModelState
    load_s: float | None = None
    bytes: int | None = None


class Enrolment1(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    wire_version: int
    name: str
    instance: str
    boot_id: str
    sequence: int
    url: str
    region: str
    zone: str = ""
    tier: str = "edge"
    hardware_class: str = "unknown"
    slots: int
    models: tuple[HeldModel1, ...]


class Pressure1(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    memory_used_share: float = 0.0
    memory_stalled_share: float = 0.0
    disk_free_bytes: int | None = None
    cores: int | None = None
    lost_lines: int = 0
    degraded: tuple[str, ...] = ()


class EndpointReport1(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    wire_version: int
    name: str
    region: str
    instance: str
    sequence: int
    in_flight: int
    slots: int
    queued: int = 0
    ready: bool
    draining: bool
    models_generation: int
    models: tuple[HeldModel1, ...]
    seen: dict[str, int] = {}
    pressure: Pressure1 = Pressure1()


REPORT1 = EndpointReport1(
    wire_version=1,
    name="shop-1",
    region="eu-west",
    instance="i1",
    sequence=1,
    in_flight=0,
    slots=2,
    ready=True,
    draining=False,
    models_generation=1,
    models=(HeldModel1("digits", "1", ModelState.WARM, 0.5, 1000),),
)
ENROLMENT1 = Enrolment1(
    wire_version=1,
    name="shop-1",
    instance="i1",
    boot_id="b1",
    sequence=1,
    url="http://127.0.0.1:9001",
    region="eu-west",
    slots=2,
    models=REPORT1.models,
)
REPORT = EndpointReport(
    wire_version=WIRE_VERSION,
    name="shop-1",
    region="eu-west",
    instance="i1",
    sequence=1,
    in_flight=0,
    slots=2,
    ready=True,
    draining=False,
    models_generation=1,
    models=(
        HeldModel("digits", "1", ModelState.WARM, 0.5, 1000, active=True),
        HeldModel("digits", "2", ModelState.COLD, active=False),
    ),
)


def test_an_old_endpoints_report_is_understood():
    report = decode_endpoint_report(msgspec.json.encode(REPORT1))
    assert report is not None
    assert [(m.name, m.state, m.active) for m in report.models] == [
        ("digits", ModelState.WARM, None)
    ]


def test_an_old_endpoints_enrolment_is_understood():
    assert decode_enrolment(msgspec.json.encode(ENROLMENT1)).models[0].active is None


@pytest.mark.parametrize("asked", [None, b"0", b"1", b"x", b"", b"9" * 5000])
def test_an_old_router_understands_the_report_that_it_asks_for(asked):
    headers = [] if asked is None else [(WIRE_HEADER, asked)]
    told = msgspec.json.encode(told_to(headers, REPORT))
    read = msgspec.json.decode(told, type=EndpointReport1)
    assert read.wire_version == 1
    assert [(m.version, m.state, m.bytes) for m in read.models] == [
        ("1", ModelState.WARM, 1000),
        ("2", ModelState.COLD, None),
    ]


@pytest.mark.parametrize("asked", [WIRE_VERSION, WIRE_VERSION + 1])
def test_a_new_router_is_told_everything(asked):
    told = msgspec.json.encode(told_to([(WIRE_HEADER, b"%d" % asked)], REPORT))
    assert decode_endpoint_report(told) == REPORT


def test_the_old_schema_is_as_strict_as_it_was():
    with pytest.raises(msgspec.ValidationError, match="active"):
        msgspec.json.decode(msgspec.json.encode(REPORT), type=EndpointReport1)
