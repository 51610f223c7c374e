"""What follows from how many replicas there are, and what one call cost."""

from hypothesis import given
from hypothesis import strategies as some

from isochrone.cloud.config import CloudConfig, ModelConfig
from isochrone.cloud.report import Cost, split
from isochrone.cloud.scale import Standing, cpus_needed, ingress_ongoing, replication, slots
from isochrone.router.wire.report import CallReport, ModelState, encode_call_report

counts = some.integers(0, 50)
standings = some.builds(Standing, counts, counts)
models = some.builds(
    ModelConfig,
    name=some.sampled_from("abc"),
    replicas_min=some.integers(0, 3),
    replicas_max=some.integers(3, 9),
    max_ongoing_requests=some.integers(2, 9),
    max_queued_requests=counts,
)


@given(standings)
def test_a_model_is_warm_exactly_where_a_replica_runs(standing):
    assert (standing.state is ModelState.WARM) == (standing.running > 0)
    assert (standing.state is ModelState.COLD) == (standing == Standing(0, 0))


@given(some.lists(models, unique_by=lambda model: model.name), standings)
def test_slots_grow_with_the_running_replicas_and_fit_through_the_ingress(held, standing):
    now = slots(held, {model.name: standing for model in held})
    assert now == {model.name: standing.running * model.max_ongoing_requests for model in held}
    most = {model.name: Standing(model.replicas_max) for model in held}
    assert sum(slots(held, most).values()) < ingress_ongoing(held)


@given(models)
def test_a_model_scales_only_where_its_bounds_differ(model):
    options = replication(model)
    if model.replicas_min == model.replicas_max:
        assert options == {"num_replicas": model.replicas_min}
    else:
        scaling = options["autoscaling_config"]
        assert (scaling["min_replicas"], scaling["max_replicas"]) == (
            model.replicas_min,
            model.replicas_max,
        )


def test_a_sleeping_model_needs_its_cpu_too(tmp_path):
    asleep = ModelConfig(name="a", replicas_min=0, num_cpus=2)
    config = CloudConfig(name="h", region="r", packages=tmp_path, models=(asleep,))
    assert cpus_needed(config) == 2.1


@given(infer_s=some.floats(0, 10), elapsed_s=some.floats(0, 10))
def test_waiting_and_inferring_make_up_the_whole_time(infer_s, elapsed_s):
    cost = Cost.of(report(infer_s), elapsed_s)
    assert cost.wait_s >= 0
    assert cost.infer_s <= infer_s
    assert abs(cost.wait_s + cost.infer_s - elapsed_s) < 1e-9


def test_a_replicas_own_report_and_timing_do_not_leave_the_region():
    told = report(0.5)
    fields = [
        (b"content-type", b"application/json"),
        (b"server-timing", b"wait;dur=1"),
        (b"endpoint-load-metrics", encode_call_report(told)),
    ]
    assert split(fields) == (fields[:1], told)
    assert split(fields[:1]) == (fields[:1], None)


def report(infer_s):
    return CallReport(
        instance="one",
        sequence=1,
        in_flight=1,
        slots=2,
        latency_s=infer_s,
        wait_s=0.0,
        infer_s=infer_s,
        models_generation=0,
    )
