"""The Serve application of one region: an ingress, and a deployment for each of its models."""

from typing import Any

from ray import serve
from ray.serve import Application

from isochrone.cloud.catalogue import find_package
from isochrone.cloud.config import CloudConfig, ModelConfig, from_arguments
from isochrone.cloud.handle import RETRY_AFTER_S
from isochrone.cloud.ingress import Ingress, observe_serve
from isochrone.cloud.region import Observe
from isochrone.cloud.replica import Replica
from isochrone.cloud.scale import INGRESS_CPUS, ingress_ongoing, replication
from isochrone.edge_agent.runtime.package.package import Package

DRAIN_LOOK_S = 0.2
"""A replica that was told to stop looks this often whether its calls have ended."""
INGRESS = "_ingress"
"""No model is called so: their names begin with a letter or a digit."""


def build(arguments: dict[str, Any]) -> Application:
    """What Serve's configuration files name as `import_path`; `arguments` are the `args` there.

    Raises:
        PackageError: a package is missing or cannot be used.
    """
    return application(from_arguments(arguments))


def application(config: CloudConfig, observe: Observe = observe_serve) -> Application:
    """The application; `observe` asks how the replicas stand.

    Raises:
        PackageError: a package is missing or cannot be used.
    """
    packages = [find_package(config.packages, one.name, one.version) for one in config.models]
    models = {
        model.name: _model(config, model, package)
        for model, package in zip(config.models, packages, strict=True)
    }
    return _ingress(config, packages, models, observe)


def _model(config: CloudConfig, model: ModelConfig, package: Package) -> Application:
    deployment = serve.deployment(
        name=model.name,
        max_ongoing_requests=model.max_ongoing_requests,
        max_queued_requests=model.max_queued_requests,
        backpressure_config={"status_code": 503, "retry_after_s": RETRY_AFTER_S},
        graceful_shutdown_timeout_s=config.drain_s,
        graceful_shutdown_wait_loop_s=DRAIN_LOOK_S,
        ray_actor_options={"num_cpus": model.num_cpus, "num_gpus": model.num_gpus},
        **replication(model),
    )
    return deployment(Replica).bind(config, model, package)


def _ingress(
    config: CloudConfig,
    packages: list[Package],
    models: dict[str, Application],
    observe: Observe,
) -> Application:
    deployment = serve.deployment(
        name=INGRESS,
        num_replicas=config.ingress_replicas,
        max_ongoing_requests=ingress_ongoing(config.models),
        graceful_shutdown_timeout_s=config.drain_s,
        graceful_shutdown_wait_loop_s=DRAIN_LOOK_S,
        ray_actor_options={"num_cpus": INGRESS_CPUS},
    )
    manifests = [package.manifest for package in packages]
    return deployment(Ingress).bind(config, manifests, models, observe)
