"""The Serve deployment that takes every request of a region and hands calls to its replicas."""

import asyncio
import secrets
from collections.abc import Mapping

from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import DeploymentStatusOverview
from starlette.requests import Request as AsgiRequest

from isochrone.cloud.asgi import Answer, answered
from isochrone.cloud.config import CloudConfig
from isochrone.cloud.handle import ServeReplicas
from isochrone.cloud.region import Observe, Region
from isochrone.cloud.replica import Replica
from isochrone.cloud.scale import Standing
from isochrone.edge_agent.runtime.package.manifest import Manifest
from isochrone.router.process.clock import monotonic


async def observe_serve() -> Mapping[str, Standing]:
    """How the replicas of this ingress's own application stand, by deployment."""
    name = serve.get_replica_context().app_name
    status = await asyncio.to_thread(serve.status)  # it waits for Serve's controller
    application = status.applications.get(name)
    if application is None:
        return {}
    return {
        deployment: Standing(
            running=_count(overview, "RUNNING"), starting=_count(overview, "STARTING")
        )
        for deployment, overview in application.deployments.items()
    }


def _count(overview: DeploymentStatusOverview, state: str) -> int:
    return sum(count for named, count in overview.replica_states.items() if named == state)


class Ingress:
    """HTTP in, calls by handle out."""

    def __init__(
        self,
        config: CloudConfig,
        manifests: list[Manifest],
        handles: Mapping[str, DeploymentHandle[Replica]],
        observe: Observe = observe_serve,
    ) -> None:
        """`handles` are the models' replicas, by name."""
        self._body_bytes = config.body_bytes
        self._region = Region(
            config,
            manifests,
            {name: ServeReplicas(handle) for name, handle in handles.items()},
            observe,
            instance=f"{config.name}-{secrets.token_hex(8)}",
            clock=monotonic,
        )

    async def __call__(self, asgi: AsgiRequest) -> Answer:
        """Answer one request."""
        return await answered(asgi, self._body_bytes, monotonic(), self._region.handle)
