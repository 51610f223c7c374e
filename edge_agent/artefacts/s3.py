"""Packages in a bucket of S3, or of a service that speaks like it. Needs the extra `s3`."""

from functools import cached_property
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from isochrone.edge_agent.artefacts.blocking import BlockingSource, Readable
from isochrone.edge_agent.artefacts.settings import FromS3
from isochrone.edge_agent.artefacts.source import Source, SourceFailed, SourceRefused

_CONNECT_S = 10.0
_TRANSIENT = frozenset({408, 425, 429})
_SERVER_ERROR = 500


class _Bucket:
    def __init__(self, config: FromS3, stall_s: float) -> None:
        self.title = f"s3://{config.bucket}/{config.prefix}"
        self._bucket = config.bucket
        self._prefix = f"{config.prefix.rstrip('/')}/" if config.prefix else ""
        self._config = config
        self._stall_s = stall_s

    @cached_property
    def _client(self) -> Any:  # noqa: ANN401 - boto3 makes its classes at run time
        """Made when it is first needed, and so in the source's thread: it takes a while."""
        # One try each: a pull tries again by itself, from where it was.
        limits = Config(
            connect_timeout=_CONNECT_S,
            read_timeout=self._stall_s,
            retries={"total_max_attempts": 1},
        )
        region, url = self._config.region, self._config.endpoint_url
        return boto3.client("s3", region_name=region, endpoint_url=url, config=limits)

    def open(self, path: str, start: int) -> Readable:
        wanted = {"Bucket": self._bucket, "Key": self._prefix + path}
        if start:
            wanted["Range"] = f"bytes={start}-"
        answer = self._client.get_object(**wanted)
        body: Readable = answer["Body"]
        if start and not answer.get("ContentRange", "").startswith(f"bytes {start}-"):
            body.close()
            raise SourceRefused(f"{self.title}: {path} is not given from byte {start} on")
        return body

    def failed(self, path: str, error: Exception) -> Exception | None:
        if isinstance(error, ClientError):
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            again = status in _TRANSIENT or status >= _SERVER_ERROR
            kind = SourceFailed if again else SourceRefused
            return kind(f"{self.title}: {path}: {error}")
        if isinstance(error, BotoCoreError | OSError):
            return SourceFailed(f"{self.title}: {path}: {error}")
        return None


def make(config: FromS3, stall_s: float) -> Source:
    """The source that a configuration names."""
    return BlockingSource(_Bucket(config, stall_s), stall_s)
