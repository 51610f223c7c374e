"""What may follow what in the life of a model on one endpoint: one table, nothing else."""

from collections.abc import Mapping
from enum import StrEnum

from isochrone.router.wire.report import ModelState


class Step(StrEnum):
    """What happens to a model."""

    STORE = "store"
    """Its package came to disk."""
    LOAD = "load"
    """Its weights begin to be read."""
    LOADED = "loaded"
    """Its weights are in memory; the warm-up samples are asked."""
    ANSWERED = "answered"
    """The warm-up samples were answered."""
    FAILED = "failed"
    """It could not be loaded, or did not answer."""
    DRAIN = "drain"
    """It takes no more requests."""
    RECALL = "recall"
    """It takes requests again: its memory had not been given back."""
    DRAINED = "drained"
    """Its last request ended, its memory was given back."""
    CRASHED = "crashed"
    """The process that ran it died."""


class IllegalMove(Exception):
    """A step that cannot happen in this state: a fault of the program, not of its input."""


_AFTER: Mapping[tuple[ModelState, Step], ModelState] = {
    (ModelState.ABSENT, Step.STORE): ModelState.COLD,
    (ModelState.COLD, Step.LOAD): ModelState.LOADING,
    (ModelState.LOADING, Step.LOADED): ModelState.WARMING,
    (ModelState.LOADING, Step.FAILED): ModelState.COLD,
    (ModelState.WARMING, Step.ANSWERED): ModelState.WARM,
    (ModelState.WARMING, Step.FAILED): ModelState.COLD,
    (ModelState.WARM, Step.DRAIN): ModelState.DRAINING,
    (ModelState.WARM, Step.CRASHED): ModelState.COLD,
    (ModelState.DRAINING, Step.RECALL): ModelState.WARM,
    (ModelState.DRAINING, Step.DRAINED): ModelState.COLD,
}


def after(state: ModelState, step: Step) -> ModelState:
    """The state that a step leads to.

    Raises:
        IllegalMove: the step cannot happen now.
    """
    following = _AFTER.get((state, step))
    if following is None:
        raise IllegalMove(f"{step} cannot happen to a model that is {state}")
    return following
