"""A Ray for this process alone, or another that runs already, and our application on it."""

import http.client
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import NoReturn

import ray
from ray import serve

from isochrone.cloud.application import application
from isochrone.cloud.config import CloudConfig
from isochrone.cloud.serve_file import logging_config
from isochrone.router.errors import IsochroneError
from isochrone.router.process.clock import Clock, monotonic

_LOOK_S = 0.05
_READY_S = 60.0
_WATCH_S = 2.0


class CloudError(IsochroneError):
    """Ray or Serve could not start what was asked for."""

    code = "cloud"


@contextmanager
def running(config: CloudConfig, folder: Path | None) -> Iterator[str]:
    """The application's URL, once every model answers; all of it is stopped at the end.

    `folder` is that of a Ray of our own, None where we join another.

    Raises:
        CloudError: a deployment cannot start.
    """
    _reach(config, folder)
    try:
        _deploy(config)
        try:
            _await_ready(config, monotonic)
            yield f"http://{config.listen}"
        finally:
            _withdraw(config)
    finally:
        ray.shutdown()


def watch() -> NoReturn:
    """Wait as long as this node of Ray lives.

    Raises:
        CloudError: it has died, as Ray knows some 15 s later. Without its head Ray ends the process
            by itself, after a minute.
    """
    node_id = ray.get_runtime_context().get_node_id()
    alive = True
    while alive:
        time.sleep(_WATCH_S)
        nodes = ray.nodes()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
        alive = any(node["NodeID"] == node_id and node["Alive"] for node in nodes)
    raise CloudError("the raylet of this machine has died; Ray's logs say why; start again")


def _reach(config: CloudConfig, folder: Path | None) -> None:
    if folder is None:
        where = config.ray.address
        try:
            ray.init(address=where, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, RuntimeError) as error:
            raise CloudError(f"no Ray can be joined at ray.address {where}: {error}") from error
        return
    ray.init(
        address="local",
        num_cpus=config.ray.num_cpus,
        object_store_memory=config.ray.object_store_bytes,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        _node_ip_address="127.0.0.1",
        _temp_dir=str(folder),
    )


def _deploy(config: CloudConfig) -> None:
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": config.host, "port": config.port},
        logging_config=logging_config(config),
    )
    try:
        serve.run(
            application(config),
            name=config.name,
            route_prefix="/",
            logging_config=logging_config(config),
        )
    except RuntimeError as error:  # what Serve raises where a deployment cannot start
        raise CloudError(f"{config.name} could not be deployed: {error}") from error


def _await_ready(config: CloudConfig, clock: Clock) -> None:
    """Serve's proxy learns of an application a little after it is deployed."""
    until_s = clock() + _READY_S
    while not _answers(config):
        if clock() > until_s:
            raise CloudError(f"{config.listen} did not answer within {_READY_S:g} s")
        time.sleep(_LOOK_S)


def _answers(config: CloudConfig) -> bool:
    connection = http.client.HTTPConnection(config.host, config.port, timeout=5.0)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _withdraw(config: CloudConfig) -> None:
    """Let what runs end; on a Ray of others, take nothing away but what we brought."""
    if config.ray.address is None:
        serve.shutdown()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
    else:
        serve.delete(config.name)
