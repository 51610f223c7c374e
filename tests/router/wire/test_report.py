"""Reports: brief and full, from this version and its neighbours."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.errors import BadRequest
from isochrone.router.wire.report import (
    CallReport,
    decode_call_report,
    decode_endpoint_report,
    decode_enrolment,
    encode_call_report,
    version_order,
)

COUNTS = st.integers(0, 2**40)
SLOTS = st.integers(0, 65536)
TIMES = st.floats(0, 1e4)
REPORTS = st.builds(
    CallReport,
    instance=st.text(max_size=20),
    sequence=COUNTS,
    in_flight=COUNTS,
    slots=SLOTS,
    latency_s=TIMES,
    wait_s=TIMES,
    infer_s=TIMES,
    models_generation=COUNTS,
    seq_seen=COUNTS,
)


@given(REPORTS)
def test_what_goes_in_comes_out(report):
    assert decode_call_report(encode_call_report(report)) == report


@given(st.binary(max_size=80))
def test_rubbish_is_no_report_and_no_error(value):
    assert decode_call_report(value) is None
    assert decode_call_report(b"JSON " + value) is None
    assert decode_endpoint_report(value) is None


HOSTILE = {
    "not UTF-8": b'{"application_utilization":0,"named_metrics":{},"instance":"\xff"}',
    "nested": b"[" * 20_000,
    "huge": b'{"application_utilization":0,"named_metrics":{"in_flight":1e300},"instance":"i"}',
    "negative": encode_call_report(
        CallReport(
            instance="i",
            sequence=1,
            in_flight=-1,
            slots=1,
            latency_s=0,
            wait_s=0,
            infer_s=0,
            models_generation=1,
        )
    ).removeprefix(b"JSON "),
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_report_is_no_report(value):
    assert decode_call_report(b"JSON " + value) is None
    assert decode_endpoint_report(value) is None


def test_other_balancers_can_read_it():
    report = CallReport(
        instance="i",
        sequence=1,
        in_flight=3,
        slots=4,
        latency_s=0.02,
        wait_s=0.0,
        infer_s=0.02,
        models_generation=1,
    )
    orca = json.loads(encode_call_report(report).removeprefix(b"JSON "))
    assert orca["application_utilization"] == 0.75
    assert all(isinstance(number, int | float) for number in orca["named_metrics"].values())


ENROLMENT = {
    "wire_version": 1,
    "name": "shop-1",
    "instance": "i1",
    "boot_id": "b1",
    "sequence": 1,
    "url": "http://127.0.0.1:9001",
    "region": "eu-west",
    "slots": 2,
    "models": [{"name": "digits", "version": "1", "state": "warm"}],
}


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_neighbouring_wire_version_is_understood(version):
    decode_enrolment(json.dumps({**ENROLMENT, "wire_version": version}).encode())


REFUSED = {
    "no JSON": b"{",
    "unknown field": json.dumps({**ENROLMENT, "tokn": "x"}).encode(),
    "field missing": json.dumps({k: v for k, v in ENROLMENT.items() if k != "url"}).encode(),
    "wire version": json.dumps({**ENROLMENT, "wire_version": 4}).encode(),
    "name": json.dumps({**ENROLMENT, "name": "shop 1"}).encode(),
    "slots": json.dumps({**ENROLMENT, "slots": 0}).encode(),
    "a line end in the name": json.dumps({**ENROLMENT, "name": "shop-1\n"}).encode(),
    "not UTF-8": json.dumps(ENROLMENT).encode().replace(b"i1", b"\xff"),
    "nested": b"[" * 20_000,
    "sequence": json.dumps({**ENROLMENT, "sequence": 10**400}).encode(),
    "state": json.dumps(
        {**ENROLMENT, "models": [{"name": "d", "version": "1", "state": "hot"}]}
    ).encode(),
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_enrolments_that_are_refused(body):
    with pytest.raises(BadRequest, match="enrolment"):
        decode_enrolment(body)


def test_versions_in_order():
    ordered = ["beta", "1", "1.9", "1.10", "9", "10", "10.rc", "10.1"]
    assert sorted(set(ordered), key=version_order) == ordered
