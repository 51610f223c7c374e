"""Who made a package: a detached Ed25519 signature over the exact bytes of its manifest (RFC 8032).

The manifest holds the digest of every other file, so its signature covers them all. `manifest.sig`
holds the 64 bytes in base64.
"""

import base64
import binascii
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from isochrone.edge_agent.artefacts.settings import public_bytes
from isochrone.edge_agent.runtime.package.package import (
    MAX_SIGNATURE_BYTES,
    SIGNATURE,
    PackageError,
)
from isochrone.router.errors import ConfigError
from isochrone.router.process.regular_file import open_regular

_MAX_KEYS_BYTES = 1 << 20
_REMEDY = "sign it with a trusted key (isochrone package sign), or trust the key that did"


def sign(manifest: bytes, key: Ed25519PrivateKey) -> bytes:
    """The content of `manifest.sig`."""
    return base64.b64encode(key.sign(manifest)) + b"\n"


def told(key: Ed25519PublicKey) -> str:
    """A public key as people pass it on."""
    return base64.b64encode(key.public_bytes_raw()).decode()


class Trust:
    """The keys whose packages are taken."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._keys = [Ed25519PublicKey.from_public_bytes(key) for key in keys]

    def __call__(self, path: Path, manifest: bytes) -> None:
        """Refuse a package on disk that no trusted key has signed.

        Raises:
            PackageError: it is unsigned, or its signature is no good.
        """
        file = path / SIGNATURE
        try:
            with open_regular(file) as opened:
                signature = opened.read(MAX_SIGNATURE_BYTES)
        except FileNotFoundError:
            signature = None
        except OSError as error:
            raise PackageError(f"{file}: cannot be read: {error.strerror}; {_REMEDY}") from error
        self.check(str(path), manifest, signature)

    def check(self, title: str, manifest: bytes, signature: bytes | None) -> None:
        """Refuse a manifest that no trusted key has signed; `title` says whose.

        Raises:
            PackageError: no trusted key has made this signature.
        """
        if signature is None:
            raise PackageError(f"{title}: is not signed; {_REMEDY}")
        try:
            raw = base64.b64decode(signature.strip(), validate=True)
        except binascii.Error as error:
            text = f"{title}: {SIGNATURE} holds no signature in base64; {_REMEDY}"
            raise PackageError(text) from error
        if not any(_signed(key, raw, manifest) for key in self._keys):
            raise PackageError(f"{title}: no trusted key has signed this manifest; {_REMEDY}")


def make(inline: Iterable[str], files: Iterable[Path]) -> Trust:
    """The trust that a configuration describes.

    Raises:
        ConfigError: a file of keys cannot be used.
    """
    keys = [public_bytes(text) for text in inline]
    for path in files:
        keys += _keys_in(path)
    return Trust(keys)


def _signed(key: Ed25519PublicKey, signature: bytes, manifest: bytes) -> bool:
    try:
        key.verify(signature, manifest)
    except InvalidSignature:
        return False
    return True


def _keys_in(path: Path) -> list[bytes]:
    try:
        with open_regular(path) as file:
            lines = file.read(_MAX_KEYS_BYTES).decode("ascii").split()
        keys = [public_bytes(line) for line in lines]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: holds no public keys, one a line: {error}") from error
    if not keys:
        raise ConfigError(f"{path}: holds no public key; write one a line, in base64")
    return keys
