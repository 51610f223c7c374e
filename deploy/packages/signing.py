"""`isochrone package keygen` and `sign`: who made a package, by a key that agents can trust."""

import argparse
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from isochrone.edge_agent.artefacts import signature
from isochrone.edge_agent.runtime.package.durable import write_through
from isochrone.edge_agent.runtime.package.package import (
    MANIFEST,
    SIGNATURE,
    Package,
    PackageError,
    open_package,
)
from isochrone.router.errors import ConfigError

ACTIONS = frozenset({"keygen", "sign"})
_PRIVATE = 0o600


def add_actions(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`keygen` and `sign`."""
    made = actions.add_parser("keygen", help="make a key to sign packages with")
    made.add_argument(
        "--output", type=Path, required=True, help="NAME: writes NAME.key, secret, and NAME.pub"
    )
    signed = actions.add_parser("sign", help="sign a package")
    signed.add_argument("path", type=Path, help="a package")
    signed.add_argument("--key", type=Path, required=True, help="the secret key, NAME.key")


def add_trust_argument(parser: argparse.ArgumentParser) -> None:
    """`--trusted-key FILE`."""
    parser.add_argument(
        "--trusted-key",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="hold signatures to these public keys (NAME.pub); may be given more than once",
    )


def run(args: argparse.Namespace) -> int:
    """Do it.

    Raises:
        ConfigError: a key file cannot be used.
        PackageError: the package cannot be signed.
    """
    for line in keygen(args.output) if args.action == "keygen" else sign(args.path, args.key):
        print(line)
    return 0


def problems(packages: Iterable[Package], trusted: Iterable[Path]) -> Iterator[str]:
    """What keeps packages from being taken by who trusts these keys; nothing without keys."""
    files = list(trusted)
    trust = signature.make((), files) if files else None
    for package in packages if trust else ():
        try:
            open_package(package.path, trust)
        except PackageError as error:
            yield error.message


def keygen(output: Path) -> Iterator[str]:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = signature.told(key.public_key())
    # The part after the last dot belongs to the name: shop.eu becomes shop.eu.key.
    _write_new(output.with_name(f"{output.name}.key"), pem, _PRIVATE)
    _write_new(output.with_name(f"{output.name}.pub"), f"{public}\n".encode(), 0o644)
    yield f"secret key: {output}.key (keep it where packages are made, and nowhere else)"
    yield f"public key: {output}.pub; agents trust it by these lines of agent.yaml:"
    yield f'artefacts: {{trusted_keys: ["{public}"]}}'


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode))
        write_through(path, data)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be made: {error.strerror}") from error


def sign(path: Path, key_file: Path) -> Iterator[str]:
    key = _key(key_file)
    package = open_package(path)
    manifest = (path / MANIFEST).read_bytes()
    file = path / SIGNATURE
    try:
        write_through(file, signature.sign(manifest, key))
    except OSError as error:
        raise PackageError(f"{file}: cannot be written: {error.strerror}") from error
    yield f"signed {package.name} {package.version} in {file}"
    yield f"digest {package.digest}"


def _key(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise ConfigError(f"--key {path}: cannot be used: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"--key {path}: is no Ed25519 key; make one: isochrone package keygen")
    return key
