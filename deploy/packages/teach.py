"""Trains a network to answer as another one does, on torch; the same seed gives the same weights.

G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015: the student
learns the teacher's answers softened by a temperature T, weighted by T², beside the labels. Numbers
that are no classes are learnt by their squared error.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from isochrone.deploy.packages.dataset import Dataset
from isochrone.deploy.packages.measure import answers
from isochrone.edge_agent.runtime.engines.torch_engine import network
from isochrone.edge_agent.runtime.package.manifest import Architecture, Softmax, Variant
from isochrone.edge_agent.runtime.package.package import Package, PackageError
from isochrone.router.errors import BadRequest
from isochrone.router.wire.tensor import Array

_BATCH = 64
_SMALLEST = 1e-12
"""Of a probability whose logarithm is taken."""
_TELLINGS = 8
"""How often a training says how far it is."""
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits and the positions of their items in the training set → what to make small."""


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """Inputs, what the teacher says of each, and the right classes where they are known."""

    inputs: Array
    taught: Array
    labels: Array | None
    probabilities: bool
    """The teacher gives probabilities; else logits or plain numbers."""
    classes: bool

    @classmethod
    def of(cls, package: Package, teacher: Variant, data: Dataset) -> "Lesson":
        """What a package's variant teaches on some data.

        Raises:
            PackageError: it cannot teach a torch network, or cannot be loaded.
        """
        specs = (*package.takes, *package.gives)
        if [spec.datatype for spec in specs] != ["FP32", "FP32"]:
            raise PackageError(
                f"{package.path}: a network can be trained where the package takes one FP32 input"
                " and gives one FP32 output"
            )
        (inputs,) = data.inputs.values()
        taught = np.concatenate([outputs[0] for outputs in answers(package, teacher, data)])
        sums = taught.sum(-1)
        probabilities = bool(float(np.min(taught)) >= 0 and np.allclose(sums, 1, atol=1e-3))
        classes = probabilities or data.labels is not None or bool(package.manifest.labels)
        return cls(inputs, taught, data.labels, probabilities, classes)


@dataclass(frozen=True, slots=True)
class Teaching:
    """How to train: `label_share` of the loss comes from labels, the rest from the teacher."""

    epochs: int
    rate: float
    temperature: float
    label_share: float
    seed: int
    progress: Callable[[str], None]

    @classmethod
    def of(cls, args: argparse.Namespace, progress: Callable[[str], None]) -> "Teaching":
        """What the command line says."""
        how = args.epochs, args.rate, args.temperature, args.label_share, args.seed
        return cls(*how, progress)


def teach(
    architecture: Architecture,
    weights: Mapping[str, Array] | None,
    lesson: Lesson,
    how: Teaching,
) -> dict[str, Array]:
    """The weights after the training, from `weights` or from the seed's own.

    Raises:
        BadRequest: the layers do not fit each other, or the data.
    """
    ends_in_softmax = isinstance(architecture[-1], Softmax)
    with repeatable(how.seed):
        net = network(architecture[:-1] if ends_in_softmax else architecture)
        if weights is not None:
            net.load_state_dict({name: torch.from_numpy(data) for name, data in weights.items()})
        inputs = torch.from_numpy(lesson.inputs)
        _check_fits(net, inputs, lesson)
        fit(net, inputs, _loss(lesson, how), epochs=how.epochs, rate=how.rate, told=how.progress)
    return {name: tensor.detach().numpy() for name, tensor in net.state_dict().items()}


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """One thread and a fixed seed; both are given back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def fit(
    net: nn.Sequential,
    inputs: torch.Tensor,
    loss: Loss,
    *,
    epochs: int,
    rate: float,
    told: Callable[[str], None] = lambda _: None,
) -> nn.Sequential:
    """Train a network, and say now and then how far it is."""
    batches = -(-len(inputs) // _BATCH)
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=rate, total_steps=epochs * batches
    )
    for epoch in range(1, epochs + 1):
        sum_of_losses = 0.0
        for chosen in torch.randperm(len(inputs)).split(_BATCH):  # type: ignore[no-untyped-call]  # torch leaves it bare
            optimiser.zero_grad()
            wrong = loss(net(inputs[chosen]), chosen)
            wrong.backward()  # type: ignore[no-untyped-call]  # torch leaves it bare
            optimiser.step()
            schedule.step()
            sum_of_losses += wrong.item()
        if epoch % max(1, epochs // _TELLINGS) == 0:
            told(f"epoch {epoch} of {epochs}: loss {sum_of_losses / batches:.4f}")
    return net.eval()


def distilling(
    taught: torch.Tensor, labels: torch.Tensor | None, temperature: float, label_share: float
) -> Loss:
    """The loss against a teacher's logits at a temperature, and against labels."""
    soft = functional.softmax(taught / temperature, dim=-1)

    def loss(logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        said = functional.log_softmax(logits / temperature, dim=-1).flatten(0, -2)
        alike = functional.kl_div(said, soft[chosen].flatten(0, -2), reduction="batchmean")
        if labels is None:
            return alike * temperature**2
        right = functional.cross_entropy(logits.flatten(0, -2), labels[chosen].flatten())
        return alike * temperature**2 * (1 - label_share) + right * label_share

    return loss


def _loss(lesson: Lesson, how: Teaching) -> Loss:
    taught = torch.from_numpy(np.ascontiguousarray(lesson.taught))
    if not lesson.classes:
        return lambda numbers, chosen: functional.mse_loss(numbers, taught[chosen])
    logits = taught.clamp_min(_SMALLEST).log() if lesson.probabilities else taught
    labels = None if lesson.labels is None else torch.from_numpy(lesson.labels.astype(np.int64))
    return distilling(logits, labels, how.temperature, how.label_share)


def _check_fits(net: nn.Sequential, inputs: torch.Tensor, lesson: Lesson) -> None:
    try:
        with torch.inference_mode():
            shape = tuple(net(inputs[:1]).shape[1:])
    except RuntimeError as error:  # torch's one answer to sizes that do not go together
        reason = " ".join(str(error).split())
        raise BadRequest(
            f"the network's layers do not fit each other, or the data ({reason})"
        ) from error
    if shape != lesson.taught.shape[1:]:
        wanted = list(lesson.taught.shape[1:])
        raise BadRequest(f"the network gives {list(shape)} for each item, the teacher {wanted}")
