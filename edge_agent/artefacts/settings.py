"""`artefacts` in agent.yaml: where packages come from, whose signature counts, how much fits."""

import base64
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from isochrone.router.process.settings import Settings

KEY_BYTES = 32
MIB = 1 << 20
HttpUrl = Annotated[
    str,
    Meta(
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$(?!\n)",
        max_length=2048,
        description="http://HOST[:PORT][/PATH] or https://..., without user, query or fragment",
    ),
]
"""No user, no query, no fragment."""
Bucket = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$(?!\n)",
        description="3 to 63 small letters, digits, dots and dashes",
    ),
]
Prefix = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z0-9._-]+/)*[A-Za-z0-9._-]*$(?!\n)",
        max_length=512,
        description="names of letters, digits, dots, dashes and underscores, with / between them",
    ),
]


class FromDirectory(Settings, frozen=True, kw_only=True, tag_field="kind", tag="directory"):
    """Packages lie in a directory, perhaps of a mounted disk: NAME/VERSION/ below `path`."""

    path: Path


class FromHttp(Settings, frozen=True, kw_only=True, tag_field="kind", tag="http"):
    """Packages lie below a URL, which must answer for itself: redirects are not followed."""

    url: HttpUrl
    bearer_file: Path | None = None
    """A file with the token that is sent as `Authorization: Bearer`."""
    ca_file: Path | None = None
    """Certificates (PEM) to trust instead of the system's."""


class FromS3(Settings, frozen=True, kw_only=True, tag_field="kind", tag="s3"):
    """Packages lie in a bucket. Credentials are found as boto3 finds them."""

    bucket: Bucket
    prefix: Prefix = ""
    region: str | None = None
    endpoint_url: HttpUrl | None = None
    """Another service than AWS that speaks S3."""


SourceConfig = FromDirectory | FromHttp | FromS3


class ArtefactsConfig(Settings, frozen=True, kw_only=True):
    """Without a source nothing can be pulled; without trusted keys no signature is asked for."""

    source: SourceConfig | None = None
    trusted_keys: tuple[str, ...] = ()
    """Ed25519 public keys, base64; with any of them, unsigned packages are refused."""
    trusted_key_files: tuple[Path, ...] = ()
    """Files of such keys, one a line."""
    disk_budget_bytes: Annotated[int, Meta(ge=MIB, le=1 << 50)] = 4096 * MIB
    """What the directory `packages` may hold, pulls that are under way included."""
    disk_reserve_bytes: Annotated[int, Meta(ge=0, le=1 << 50)] = 64 * MIB
    """What a pull must leave free on the disk."""
    stall_s: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    """A source that sends nothing for so long is asked again."""
    pull_timeout_s: Annotated[float, Meta(gt=0, le=604800)] = 21600.0
    """A pull that is not finished by then is given up; what has come is kept for the next."""

    def __post_init__(self) -> None:
        for key in self.trusted_keys:
            public_bytes(key)


def public_bytes(text: str) -> bytes:
    """The 32 bytes of a public key in base64.

    Raises:
        ValueError: it is none.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError(f"{text[:60]!r} is no base64 ({error})") from error
    if len(raw) != KEY_BYTES:
        raise ValueError(f"{text[:60]!r} has {len(raw)} bytes; an Ed25519 public key has 32")
    return raw
