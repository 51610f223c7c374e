"""`isochrone status`, `explain` and `infer`, against what running parts answer."""

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from isochrone.deploy.cli import FINE, PROBLEM, USAGE, main
from isochrone.deploy.packages.picture import read
from isochrone.deploy.result import columns
from isochrone.router.wire.codec import decode_request, encode_response
from isochrone.router.wire.message import InferResponse
from isochrone.router.wire.tensor import Tensor, TensorSpec

FLEET: dict[str, Any] = {
    "schema": "isochrone.fleet/1",
    "ok": True,
    "router": {"name": "eu-west", "region": "eu-west"},
    "generation": 3,
    "endpoints": [
        {
            "name": "far",
            "region": "us-east",
            "zone": "",
            "tier": "cloud",
            "out": None,
            "degraded": [],
            "slots": 4,
            "in_flight": 0,
            "heard": True,
            "rtt_s": 0.09,
            "rtt_measured": True,
            "models": [],
        },
        {
            "name": "near",
            "region": "eu-west",
            "zone": "dublin",
            "tier": "edge",
            "out": None,
            "degraded": [],
            "slots": 3,
            "in_flight": 2,
            "heard": True,
            "rtt_s": 0.0041,
            "rtt_measured": True,
            "models": [{"name": "digits", "version": "1", "state": "warm"}],
        },
    ],
}
DECISION = {
    "schema": "isochrone.decision/1",
    "ok": True,
    "request_id": "r-1",
    "tenant": "clinic",
    "model": "digits",
    "version": None,
    "requirement": "EU, says tenant clinic",
    "why": "nearest",
    "considered": [
        {
            "endpoint": "near",
            "region": "eu-west",
            "seconds": {"net": 0.004, "wait": 0, "service": 0.03, "cold": 0, "total": 0.034},
            "reason": None,
        },
        {"endpoint": "far", "region": "us-east", "seconds": None, "reason": "outside EU"},
    ],
    "not_considered": {"not known to hold the model": 2},
    "attempts": [{"endpoint": "near", "why": "nearest", "outcome": "answered", "seconds": 0.035}],
    "status": 200,
    "seconds": 0.036,
}
METADATA = {
    "name": "digits",
    "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}],
    "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 10]}],
}


def reply(value, status=200):
    return status, {"content-type": "application/json"}, json.dumps(value).encode()


def test_status_shows_the_fleet_nearest_first(part, capsys):
    part.replies["GET", "/isochrone/fleet"] = reply(FLEET)
    assert main(["status", "--admin", part.url]) == FINE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "router eu-west in eu-west, 2 endpoints"
    assert lines[2].split() == [
        *("near", "eu-west", "dublin", "edge", "yes", "4.1", "ms", "2", "of", "3"),
        *("digits/1", "warm"),
    ]
    assert lines[3].startswith("far ")


def test_status_with_an_endpoint_out_is_1(part, capsys):
    out = {**FLEET["endpoints"][0], "out": "2 probes missed"}
    part.replies["GET", "/isochrone/fleet"] = reply({**FLEET, "endpoints": [out]})
    assert main(["status", "--admin", part.url]) == PROBLEM
    assert "out: 2 probes missed" in capsys.readouterr().out


def test_status_says_what_an_endpoint_has_given_up(part, capsys):
    short = {**FLEET["endpoints"][0], "degraded": ["memory: new calls are refused"]}
    part.replies["GET", "/isochrone/fleet"] = reply({**FLEET, "endpoints": [short]})
    assert main(["status", "--admin", part.url]) == FINE
    assert "yes; memory: new calls are refused" in capsys.readouterr().out


def test_status_marks_what_was_never_heard_or_measured(part, capsys):
    never = {**FLEET["endpoints"][0], "out": "not heard from yet", "heard": False}
    never["rtt_measured"] = False
    part.replies["GET", "/isochrone/fleet"] = reply({**FLEET, "endpoints": [never]})
    assert main(["status", "--admin", part.url]) == PROBLEM
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[-4:] == ["~90.0", "ms", "unknown", "unknown"]
    assert lines[3] == "~: expected from the distance between the regions, not measured"


def test_json_on_standard_output_comes_alone(part, capsys):
    part.replies["GET", "/isochrone/fleet"] = reply(FLEET)
    assert main(["status", "--admin", part.url, "--json", "-"]) == FINE
    assert json.loads(capsys.readouterr().out) == FLEET


def test_explain_tells_predictions_reasons_and_tries(part, capsys):
    part.replies["GET", "/isochrone/decisions/r-1"] = reply(DECISION)
    assert main(["explain", "r-1", "--admin", part.url]) == FINE
    told = capsys.readouterr().out
    assert "r-1: digits for clinic" in told
    assert "outside EU" in told
    assert "2 more: not known to hold the model" in told
    assert "try 1: near (nearest): answered after 35.0 ms" in told


def test_a_decision_that_is_not_kept_is_1_with_what_the_router_says(part, capsys):
    problem = {"error": "no decision of that request id is kept", "code": "not_found"}
    part.replies["GET", "/isochrone/decisions/r-2"] = reply(problem, 404)
    assert main(["explain", "r-2", "--admin", part.url]) == PROBLEM
    expected = "isochrone: 404 not_found: no decision of that request id is kept\n"
    assert capsys.readouterr().err == expected


def answer_seven(part):
    classes = np.array([[b"0.9:7:seven", b"0.08:1:one", b"0.02:9:nine"]], object)
    output = (Tensor("scores", "BYTES", classes),)
    asked = decode_request([], b'{"inputs":[]}', ())
    fields, body = encode_response(asked, InferResponse("digits", "1", output))
    headers = {name.decode(): value.decode() for name, value in fields}
    headers |= {f"x-isochrone-{name}": name for name in ("endpoint", "region", "reason")}
    headers |= {"x-isochrone-attempts": "1", "x-request-id": "r-9"}
    part.replies["GET", "/v2/models/digits"] = reply(METADATA)
    part.replies["POST", "/v2/models/digits/infer"] = 200, headers, body


@pytest.fixture
def picture(tmp_path):
    """A dark vertical stroke on white paper, as people make them."""
    image = np.full((64, 48), 255, np.uint8)
    image[:, 18:24] = 0
    path = tmp_path / "one.png"
    Image.fromarray(image).save(path)
    return path


def test_infer_sends_the_picture_and_says_who_answered(part, picture, tmp_path, capsys):
    answer_seven(part)
    key = tmp_path / "key"
    key.write_text("secret\n")
    arguments = ["infer", "digits", "--image", str(picture), "--router", part.url]
    assert main([*arguments, "--key-file", str(key)]) == FINE
    told = capsys.readouterr().out
    assert "digits says seven (0.900; then one 0.080, nine 0.020)" in told
    assert "answered by endpoint in region (reason, tries 1)" in told
    assert "isochrone explain r-9" in told
    _, _, headers, body = part.asked[-1]
    assert headers["Authorization"] == "Bearer secret"
    sent = decode_request([(k.lower().encode(), v.encode()) for k, v in headers.items()], body, ())
    assert sent.inputs[0].shape == (1, 1, 8, 8)
    assert sent.inputs[0].data[0, 0, :, 3].min() > 0.9  # the stroke, now bright
    assert sent.inputs[0].data[0, 0, :, 0].max() < 0.1


def test_infer_tells_a_refusal_with_its_reasons(part, picture, capsys):
    part.replies["GET", "/v2/models/digits"] = reply(METADATA)
    problem = {"error": "nobody may", "code": "no_endpoint", "reasons": {"far": "outside EU"}}
    part.replies["POST", "/v2/models/digits/infer"] = reply(problem, 503)
    arguments = ["infer", "digits", "--image", str(picture), "--router", part.url]
    assert main(arguments) == PROBLEM
    assert "503 no_endpoint: nobody may\n  far: outside EU" in capsys.readouterr().err


def test_a_file_that_is_no_picture_is_2(part, tmp_path, capsys):
    part.replies["GET", "/v2/models/digits"] = reply(METADATA)
    path = tmp_path / "x.png"
    path.write_text("no picture")
    arguments = ["infer", "digits", "--image", str(path), "--router", part.url]
    assert main(arguments) == USAGE
    assert f"--image {path}: is no picture" in capsys.readouterr().err


def sent_for(picture, *shapes, datatype="FP32"):
    """What `infer --image` sends to a model of these inputs."""
    takes = [TensorSpec(f"x{place}", datatype, tuple(one)) for place, one in enumerate(shapes)]
    (tensor,) = read(picture, takes, bright_ink=True).inputs
    return tensor.data


@pytest.mark.parametrize(
    "shapes", [([8],), ([-1, 64],), ([-1, 1, 8, 8], [1])], ids=["a vector", "rows", "two inputs"]
)
def test_models_that_take_no_single_picture_are_refused(part, picture, capsys, shapes):
    inputs = [
        {"name": f"x{place}", "datatype": "FP32", "shape": one} for place, one in enumerate(shapes)
    ]
    part.replies["GET", "/v2/models/digits"] = reply({**METADATA, "inputs": inputs})
    assert main(["infer", "digits", "--image", str(picture), "--router", part.url]) == USAGE
    assert "no single picture" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shape", "sent"),
    [
        pytest.param([-1, 3, 8, 8], (1, 3, 8, 8), id="channels first"),
        pytest.param([-1, 8, 8, 3], (1, 8, 8, 3), id="channels last"),
        pytest.param([-1, 3, -1, -1], (1, 3, 32, 64), id="any size"),
        pytest.param([-1, 1, 8, 8], (1, 1, 8, 8), id="grey"),
        pytest.param([-1, 8, 8], (1, 8, 8), id="grey without channels"),
        pytest.param([8, 8], (8, 8), id="grey without rows"),
    ],
)
def test_infer_and_samples_read_pictures_alike(tmp_path, shape, sent):
    pixels = np.zeros((40, 70, 3), np.uint8)
    pixels[..., 0] = 255
    Image.fromarray(pixels).save(tmp_path / "red.png")
    takes = [TensorSpec("x0", "FP32", tuple(shape))]
    found = sent_for(tmp_path / "red.png", shape)
    assert found.shape == sent
    assert (found == read(tmp_path / "red.png", takes).inputs[0].data).all()
    assert found.max() == (1 if 3 in shape else pytest.approx(76 / 255))


def test_whole_numbers_are_those_of_the_picture(picture):
    assert set(sent_for(picture, [-1, 3, 64, 48], datatype="UINT8").flat) == {0, 255}


def test_a_picture_is_turned_upright(tmp_path):
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, 6:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    assert sent_for(tmp_path / "turned.png", [8, 4])[-1].tolist() == [1, 1, 1, 1]


def test_bright_ink_on_dark_ground_is_left_as_it_is(tmp_path):
    image = np.zeros((8, 8), np.uint8)
    image[2, 2] = 255
    Image.fromarray(image).save(tmp_path / "dot.png")
    assert sent_for(tmp_path / "dot.png", [-1, 8, 8])[0, 2, 2] == 1.0


def test_a_picture_that_is_gone_is_2(part, tmp_path, capsys):
    part.replies["GET", "/v2/models/digits"] = reply(METADATA)
    path = tmp_path / "gone.png"
    assert main(["infer", "digits", "--image", str(path), "--router", part.url]) == USAGE
    assert f"--image {path}: cannot be read: No such file" in capsys.readouterr().err


def test_columns_are_as_wide_as_their_widest_cell_and_numbers_stand_right():
    assert columns([["NAME", "COUNT"], ["a", "5"], ["longer", "12345"]]) == [
        "NAME    COUNT",
        "a           5",
        "longer  12345",
    ]
