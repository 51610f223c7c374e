"""Trains the demo's two networks on scikit-learn's handwritten digits; the same ones every time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

from edge_agent.runtime.manifest import (
    Architecture,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    Relu,
)
from edge_agent.runtime.torch_engine import network
from router.wire.tensor import Array

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
_BATCH = 64
_TEMPERATURE = 3.0

Weights = dict[str, torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits and the positions of their images in the training set → what to make small."""


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
    with _repeatable():
        images, labels = torch.from_numpy(learnt.images), torch.from_numpy(learnt.labels)
        progress("training digits-large (51,946 parameters) on 1257 handwritten digits")
        large = _fit(LARGE, images, _shows(labels), epochs=24, rate=3e-3)
        with torch.inference_mode():
            opinions = large(images)
        progress("training digits (994 parameters) to answer as digits-large does")
        small = _fit(SMALL, images, _agrees(labels, opinions.clone()), epochs=80, rate=1e-2)
    return Trained(_weights(small), _weights(large))


@contextmanager
def _repeatable() -> Iterator[None]:
    """One thread and a fixed seed; both are given back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            yield
    finally:
        torch.set_num_threads(threads)


def _fit(
    architecture: Architecture, images: torch.Tensor, loss: Loss, *, epochs: int, rate: float
) -> nn.Sequential:
    net = network(architecture)
    batches = -(-len(images) // _BATCH)
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=rate, total_steps=epochs * batches
    )
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(_BATCH):  # type: ignore[no-untyped-call]  # torch leaves it bare
            optimiser.zero_grad()
            loss(net(images[chosen]), chosen).backward()  # type: ignore[no-untyped-call]  # torch leaves it bare
            optimiser.step()
            schedule.step()
    return net.eval()


def _shows(labels: torch.Tensor) -> Loss:
    return lambda logits, chosen: functional.cross_entropy(
        logits, labels[chosen], label_smoothing=0.05
    )


def _agrees(labels: torch.Tensor, opinions: torch.Tensor) -> Loss:
    soft = functional.softmax(opinions / _TEMPERATURE, dim=-1)

    def loss(logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        taught = functional.cross_entropy(logits / _TEMPERATURE, soft[chosen])
        return taught * _TEMPERATURE + functional.cross_entropy(logits, labels[chosen])

    return loss


def _weights(net: nn.Sequential) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
