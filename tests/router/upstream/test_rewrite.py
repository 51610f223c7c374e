"""Header fields on their way up and down."""

import json

from isochrone.router.members.endpoint import Endpoint
from isochrone.router.policy.query import Query
from isochrone.router.upstream.event import Head
from isochrone.router.upstream.rewrite import (
    downstream_headers,
    readable_refusal,
    upstream_headers,
)
from isochrone.router.wire.report import CallReport

QUERY = Query("r1", "digits", now_s=0.0, deadline_s=30.0, tenant="acme", priority=3)


def up(headers):
    made = upstream_headers(headers, QUERY, "eu-west", remaining_s=1.5, number=1, sequence=b"r=7")
    assert len(dict(made)) == len(made), "no field twice"
    return dict(made)


def test_what_goes_up():
    sent = up(
        [
            (b"host", b"router"),
            (b"content-length", b"3"),
            (b"content-type", b"application/octet-stream"),
            (b"inference-header-content-length", b"12"),
            (b"traceparent", b"00-x"),
            (b"authorization", b"Bearer secret"),
            (b"x-api-key", b"secret"),
            (b"connection", b"keep-alive, x-private"),
            (b"x-private", b"1"),
            (b"x-isochrone-tenant", b"forged"),
            (b"x-isochrone-allowed", b"forged"),
            (b"x-isochrone-seq", b"forged"),
            (b"x-isochrone-explain", b"1"),
        ]
    )
    assert sent == {
        b"content-type": b"application/octet-stream",
        b"inference-header-content-length": b"12",
        b"traceparent": b"00-x",
        b"x-request-id": b"r1",
        b"x-request-timeout-seconds": b"1.500",
        b"x-isochrone-priority": b"3",
        b"x-isochrone-tenant": b"acme",
        b"x-isochrone-attempt": b"1",
        b"x-isochrone-region": b"eu-west",
        b"x-isochrone-seq": b"r=7",
    }


def down(head, report=None):
    return downstream_headers(
        head,
        "r1",
        Endpoint("shop-1", "http://127.0.0.1:1", "eu-west"),
        reason="nearest",
        tries=1,
        total_s=0.1,
        route_s=0.001,
        report=report,
    )


def test_what_comes_down():
    head = Head(
        200,
        [
            (b"content-type", b"application/json"),
            (b"transfer-encoding", b"chunked"),
            (b"endpoint-load-metrics", b"JSON {}"),
            (b"server-timing", b"infer;dur=1"),
            (b"x-isochrone-endpoint", b"forged"),
            (b"inference-header-content-length", b"9"),
        ],
    )
    assert down(head) == [
        (b"content-type", b"application/json"),
        (b"inference-header-content-length", b"9"),
        (b"x-request-id", b"r1"),
        (b"x-isochrone-endpoint", b"shop-1"),
        (b"x-isochrone-region", b"eu-west"),
        (b"x-isochrone-reason", b"nearest"),
        (b"x-isochrone-attempts", b"1"),
        (b"server-timing", b"route;dur=1.000, net;dur=99.000, wait;dur=0.000, infer;dur=0.000"),
    ]


def test_the_time_is_split_without_a_rest():
    report = CallReport(
        instance="i",
        sequence=1,
        in_flight=0,
        slots=1,
        latency_s=0.02,
        wait_s=0.01,
        infer_s=0.02,
        models_generation=1,
    )
    assert dict(down(Head(200, []), report))[b"server-timing"] == (
        b"route;dur=1.000, net;dur=69.000, wait;dur=10.000, infer;dur=20.000"
    )


def test_a_refusal_in_text_becomes_json():
    head, body = readable_refusal(Head(400, [(b"content-type", b"text/plain")]), b"oh no /etc/x")
    assert json.loads(body) == {
        "error": "the endpoint refused the request (400)",
        "code": "refused",
    }
    assert head.headers == [(b"content-type", b"application/json")]


def test_a_refusal_in_json_and_every_answer_pass_untouched():
    refusal = Head(400, [(b"content-type", b"application/json")])
    assert readable_refusal(refusal, b"{}") == (refusal, b"{}")
    answer = Head(200, [(b"content-type", b"text/plain")])
    assert readable_refusal(answer, b"x") == (answer, b"x")
