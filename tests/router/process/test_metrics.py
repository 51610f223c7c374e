"""The exposition of one registry."""

from itertools import pairwise

from prometheus_client import CollectorRegistry, Counter, Histogram

from isochrone.router.process.metrics import SECONDS_BUCKETS, Families, render

SIGNED = (-1.0, 0.0, 1.0)


def text(registry):
    """The exposition without the instants at which series began."""
    body = render(registry).body
    assert isinstance(body, bytes)
    return [
        line.rpartition(" ")[0] if "_created" in line and line[0] != "#" else line
        for line in body.decode().splitlines()
    ]


def test_a_registry_exposes_only_its_own():
    registry = CollectorRegistry()
    Families(registry, lambda: 1.0).histogram("a_seconds", "A.")[()].observe(0.02)
    response = render(registry)
    assert response.status == 200
    assert dict(response.headers)[b"content-type"].startswith(b"text/plain")
    assert 'a_seconds_bucket{le="0.025"} 1.0' in text(registry)
    assert not any("python_info" in line for line in text(registry))


def test_families_are_exposed_as_those_of_prometheus_client():
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    families = Families(ours, lambda: 1.0)
    counts = families.counter("c", "C.", "model", "status")
    seconds = families.histogram("h", "H.", "model")
    signed = families.histogram("s", "S.", bounds=SIGNED)
    counter = Counter("c", "C.", ["model", "status"], registry=theirs)
    histogram = Histogram("h", "H.", ["model"], buckets=SECONDS_BUCKETS, registry=theirs)
    negative = Histogram("s", "S.", buckets=SIGNED, registry=theirs)
    assert text(ours) == text(theirs)
    for number, model in enumerate(["m", 'we"ird\n', "m"]):
        counts[model, 200].value += 1
        counter.labels(model, "200").inc()
        for value in (number, *SECONDS_BUCKETS, 99.0):
            seconds[model,].observe(value)
            histogram.labels(model).observe(value)
            signed[()].observe(number - value)
            negative.observe(number - value)
    assert text(ours) == text(theirs)


def test_buckets_grow():
    assert all(low < high for low, high in pairwise(SECONDS_BUCKETS))
