"""Trains the demo's two networks on scikit-learn's handwritten digits; the same ones every time."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

from isochrone.deploy.packages.teach import Loss, distilling, fit, repeatable
from isochrone.edge_agent.runtime.engines.torch_engine import network
from isochrone.edge_agent.runtime.package.manifest import (
    Architecture,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    Relu,
)
from isochrone.router.wire.tensor import Array

SEED = 0
HELD_OUT_SHARE = 0.3
SMALL: Architecture = (
    Conv2d(inputs=1, outputs=8, kernel=3, padding=1),
    Relu(),
    MaxPool2d(kernel=2),
    Conv2d(inputs=8, outputs=8, kernel=3, padding=1),
    Relu(),
    MaxPool2d(kernel=2),
    Flatten(),
    Linear(inputs=32, outputs=10),
)
LARGE: Architecture = (
    Conv2d(inputs=1, outputs=32, kernel=3, padding=1),
    Relu(),
    Conv2d(inputs=32, outputs=64, kernel=3, padding=1),
    Relu(),
    MaxPool2d(kernel=2),
    Flatten(),
    Linear(inputs=1024, outputs=32),
    Relu(),
    Linear(inputs=32, outputs=10),
)
_TEMPERATURE = 3.0
_LABEL_SHARE = 0.1

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Digits:
    """Images FP32 [n, 1, 8, 8], 0 paper to 1 ink, and the digits that they show, int64 [n]."""

    images: Array
    labels: Array


@dataclass(frozen=True, slots=True)
class Trained:
    """The weights of both networks."""

    small: Weights
    large: Weights


def digits() -> tuple[Digits, Digits]:
    """1257 real images to learn from, and 540 held out, always the same."""
    data = load_digits()
    images = (data.images[:, None] / 16).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(
        images, data.target, test_size=HELD_OUT_SHARE, random_state=SEED, stratify=data.target
    )
    return Digits(train_x, train_y), Digits(test_x, test_y)


def train(progress: Callable[[str], None]) -> Trained:
    """Train the large network, then the small one to answer as the large one does."""
    learnt, _ = digits()
    with repeatable(SEED):
        images, labels = torch.from_numpy(learnt.images), torch.from_numpy(learnt.labels)
        progress("training digits-large (51,946 parameters) on 1257 handwritten digits")
        large = fit(network(LARGE), images, _shows(labels), epochs=24, rate=3e-3)
        with torch.inference_mode():
            opinions = large(images)
        progress("training digits (994 parameters) to answer as digits-large does")
        alike = distilling(opinions.clone(), labels, _TEMPERATURE, _LABEL_SHARE)
        small = fit(network(SMALL), images, alike, epochs=80, rate=1e-2)
    return Trained(_weights(small), _weights(large))


def _shows(labels: torch.Tensor) -> Loss:
    return lambda logits, chosen: functional.cross_entropy(
        logits, labels[chosen], label_smoothing=0.05
    )


def _weights(net: nn.Sequential) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
