"""How many replicas stand behind a model, and what follows from it. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from isochrone.cloud.config import CloudConfig, ModelConfig
from isochrone.router.wire.report import ModelState

INGRESS_CPUS = 0.1
"""What Ray sets aside for one ingress; it only passes on."""
METRICS_INTERVAL_S = 1.0
LOOK_BACK_S = 5.0
"""Serve looks at queues this often and this far back; its 10 s and 30 s are a cold start each."""
CONTROL_CALLS = 64
"""Metadata, health and report calls that an ingress takes beside all that its models take."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One model's replicas at one instant."""

    running: int = 0
    starting: int = 0

    @property
    def state(self) -> ModelState:
        """A replica runs only after its model has answered the warm-up samples."""
        if self.running:
            return ModelState.WARM
        return ModelState.LOADING if self.starting else ModelState.COLD


def slots(models: Iterable[ModelConfig], standings: Mapping[str, Standing]) -> Mapping[str, int]:
    """How many calls of each model can run at this moment; 0 where it is asleep."""
    return {
        model.name: standings[model.name].running * model.max_ongoing_requests
        for model in models
        if model.name in standings
    }


def ingress_ongoing(models: Iterable[ModelConfig]) -> int:
    """How many calls an ingress holds at most, so that refusing is left to each model's queue."""
    return CONTROL_CALLS + sum(
        model.replicas_max * model.max_ongoing_requests + model.max_queued_requests
        for model in models
    )


def cpus_needed(config: CloudConfig) -> float:
    """What Ray must have so that every first replica can start."""
    models = sum(max(model.replicas_min, 1) * model.num_cpus for model in config.models)
    return config.ingress_replicas * INGRESS_CPUS + models


def replication(model: ModelConfig) -> dict[str, Any]:
    """The deployment options that say how many replicas there are."""
    if model.replicas_min == model.replicas_max:
        return {"num_replicas": model.replicas_min}
    return {
        "autoscaling_config": {
            "min_replicas": model.replicas_min,
            "max_replicas": model.replicas_max,
            "target_ongoing_requests": model.target_ongoing_requests,
            "upscale_delay_s": model.upscale_delay_s,
            "downscale_delay_s": model.downscale_delay_s,
            "metrics_interval_s": METRICS_INTERVAL_S,
            "look_back_period_s": LOOK_BACK_S,
        }
    }
