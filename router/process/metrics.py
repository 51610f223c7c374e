"""Metrics of one process: its own registry, told in the text format of Prometheus."""

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from router.wire.http import Response

SECONDS_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip  # one row reads better than fourteen
"""Upper bounds of latency histograms, from a warm edge to the longest deadline in common use."""


def render(registry: CollectorRegistry) -> Response:
    """Everything that a registry holds, as an answer to a scrape."""
    headers = [(b"content-type", CONTENT_TYPE_LATEST.encode("ascii"))]
    return Response(200, headers, generate_latest(registry))
