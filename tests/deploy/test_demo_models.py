"""The demo's models, trained for real: how right they are, that they are kept, and not trusted."""

import shutil

import numpy as np
import pytest

from isochrone.deploy.demo import models
from isochrone.deploy.demo.models import DIGITS, DIGITS_LARGE, LEAST_ACCURACY, prepare
from isochrone.edge_agent.runtime.package.package import open_package
from isochrone.edge_agent.runtime.residence.pool import Pool
from isochrone.router.wire.message import InferRequest
from isochrone.router.wire.tensor import Tensor


def test_both_are_as_right_as_promised(made):
    assert len(made.held_out.labels) == 540
    for name, least in LEAST_ACCURACY.items():
        assert made.accuracy[name] >= least
    assert LEAST_ACCURACY == {DIGITS: 0.94, DIGITS_LARGE: 0.985}


def test_images_are_ink_on_paper_between_0_and_1(made):
    images = made.held_out.images
    assert (images.shape, images.dtype) == ((540, 1, 8, 8), np.float32)
    assert (images.min(), images.max()) == (0, 1)


@pytest.mark.parametrize("name", [DIGITS, DIGITS_LARGE])
async def test_the_runtime_says_what_a_bare_engine_says(made, name):
    pool = Pool([open_package(made.packages[name])])
    served = []
    for image in made.held_out.images:
        request = InferRequest((Tensor("image", "FP32", image[None]),))
        (answer,) = [part async for part in pool.request(name, None, request)]
        served.append(int(answer.outputs[0].data.argmax()))
    await pool.close()
    assert served == made.answers[name]


def test_a_bare_engine_that_takes_too_long_is_told(monkeypatch):
    monkeypatch.setattr(models, "_BARE_TIMEOUT_S", 0.001)
    with pytest.raises(models.TrainingError, match="took over"):
        models.bare_argmax({}, np.zeros((1, 1, 8, 8), np.float32))


def test_what_is_kept_is_used_again(cache, made):
    told: list[str] = []
    again = prepare(cache, told.append)
    assert again.accuracy == made.accuracy
    assert not any("training" in line for line in told)


def test_a_damaged_cache_is_made_again(tmp_path, cache, made, monkeypatch):
    shutil.copytree(cache, tmp_path, dirs_exist_ok=True)
    file = tmp_path / made.packages[DIGITS].relative_to(cache) / "digits.onnx"
    data = bytearray(file.read_bytes())
    data[-40] ^= 1
    file.write_bytes(data)

    def remake(store, _progress):
        shutil.copytree(made.packages[DIGITS].parents[1], store)

    monkeypatch.setattr(models, "_make", remake)
    told: list[str] = []
    assert prepare(tmp_path, told.append).accuracy == made.accuracy
    assert "made again" in told[-1]
