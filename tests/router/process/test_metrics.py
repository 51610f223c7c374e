"""The scrape of one registry."""

from itertools import pairwise

from prometheus_client import CollectorRegistry, Histogram

from isochrone.router.process.metrics import SECONDS_BUCKETS, render


def test_a_registry_tells_only_its_own():
    registry = CollectorRegistry()
    Histogram("a_seconds", "A.", registry=registry, buckets=SECONDS_BUCKETS).observe(0.02)
    response = render(registry)
    assert response.status == 200
    assert isinstance(response.body, bytes)
    assert dict(response.headers)[b"content-type"].startswith(b"text/plain")
    assert b'a_seconds_bucket{le="0.025"} 1.0' in response.body
    assert b"python_info" not in response.body


def test_buckets_grow():
    assert all(low < high for low, high in pairwise(SECONDS_BUCKETS))
