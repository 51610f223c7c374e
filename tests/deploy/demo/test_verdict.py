"""How the demo judges: evidence from logs, checks, and the closing words."""

import json

import pytest

from isochrone.deploy.demo.evidence import Evidence, outside
from isochrone.deploy.demo.load import Answer, Call
from isochrone.deploy.demo.stage import Check, Scene, all_answered, share_of
from isochrone.deploy.demo.told import closing_table, judged, scene_result, told_checks
from isochrone.deploy.local.layout import AGENTS, CAPACITY_PER_S, CLOUD, ROUTERS, lay_out

PROXY_LOG = """\
INFO 2026-11-21 07:06:12,767 proxy 192.0.2.2 eu-west.3 -- POST / 200 31.2ms
INFO 2026-11-21 07:06:12,771 proxy 192.0.2.2 eu-west.4 -- POST / 503 2.7ms
INFO 2026-11-21 07:06:12,771 proxy 192.0.2.2 -- Got updated endpoints.
"""


def answer(number, label=1, status=200, **more):
    return Answer(Call(f"eu-west.{number}", "digits", number), status, 0.05, label, **more)


@pytest.fixture
def layout(tmp_path):
    return lay_out(tmp_path, tmp_path / "ray")


def write_lines(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"request_id": "cut')


def test_served_is_what_endpoints_themselves_wrote_down(layout):
    write_lines(
        layout.access_log("eu-west-1"),
        {"request_id": "eu-west.1", "status": 200, "path": "/"},
        {"request_id": "eu-west.2", "status": 503, "path": "/"},
    )
    write_lines(layout.access_log("eu-west-2"), {"request_id": "eu-west.2", "status": 200})
    serve = layout.ray_folder / "session_2026" / "logs" / "serve"
    serve.mkdir(parents=True)
    (serve / "proxy_127.0.0.1.log").write_text(PROXY_LOG)
    asked = [f"eu-west.{number}" for number in range(1, 5)]
    assert Evidence(layout).served(asked) == {
        "eu-west.1": ["eu-west-1"],
        "eu-west.2": ["eu-west-2"],
        "eu-west.3": [CLOUD],
        "eu-west.4": [],
    }


def test_carried_is_what_the_relays_saw_on_its_way(layout):
    write_lines(
        layout.relay_log,
        {"relay": "eu-west..eu-west-1", "request_id": "eu-west.1"},
        {"relay": "eu-west..us-east-1", "request_id": "eu-west.1"},
    )
    carried = Evidence(layout).carried(["eu-west.1", "eu-west.9"])
    assert carried == {"eu-west.1": ["eu-west-1", "us-east-1"], "eu-west.9": []}
    assert outside(carried, "eu-west") == {"us-east-1": 1}


async def test_evidence_that_does_not_come_is_not_waited_for_for_ever(layout):
    assert await Evidence(layout).settled(["eu-west.1"], timeout_s=0.01) == {"eu-west.1": []}


def test_a_check_says_which_request_failed_first():
    check = all_answered([answer(1), answer(2, status=502, label=None, error="no usable answer")])
    assert not check.holds
    assert check.text == "1 of 2 requests failed, first eu-west.2: 502 no usable answer"


@pytest.mark.parametrize(("least", "holds"), [(0.5, True), (0.51, False)])
def test_shares_are_of_all_requests(least, holds):
    served = {"a": ["near"], "b": ["far"], "c": ["near", "far"], "d": []}
    assert share_of(served, "near", least).holds is holds


def test_a_scene_in_numbers():
    scene = Scene(
        "cold",
        [answer(1, reason="nearest"), answer(2, status=0, label=None)],
        {"eu-west.1": ["eu-west-1"], "eu-west.2": []},
        [Check("holds", True), Check("does not", False)],
        refusals=[answer(3, status=503, label=None)],
        loads=1,
    )
    result = scene_result(scene)
    assert (result.ok, result.requests, result.failed, result.refused) == (False, 3, 1, 1)
    assert (result.served, result.reasons, result.loads) == ({"eu-west-1": 1}, {"nearest": 1}, 1)
    assert (result.p50_ms, result.p99_ms) == (50.0, 50.0)
    assert closing_table([result])[1].startswith("cold ")
    assert list(told_checks(scene.checks)) == ["  yes  holds", "  NO   does not"]


@pytest.mark.parametrize(("labels", "same", "served"), [((4, 5, 6), 3, 2 / 3), ((4, 5, 9), 2, 1.0)])
def test_served_answers_are_held_against_the_engine_and_the_truth(labels, same, served):
    answers = [answer(number, label=label) for number, label in enumerate(labels)]
    accuracy, check = judged("digits", answers, offline=[4, 5, 6], labels=[4, 5, 9])
    assert accuracy.served == pytest.approx(served)
    assert accuracy.offline == pytest.approx(2 / 3)
    assert check.holds is (same == 3)


def test_the_layout_is_what_the_scenes_say_of_it():
    eu = ROUTERS["eu-west"].distance_s
    assert 2 * (eu["eu-west-2"] - eu["eu-west-1"]) >= 0.02
    assert {name: router.nearest for name, router in ROUTERS.items()} == {
        "eu-west": "eu-west-1",
        "us-east": "us-east-1",
    }
    assert 0.8 * len(AGENTS) * CAPACITY_PER_S >= 2 * CAPACITY_PER_S
