"""Who is asking: API keys, kept as hashes only, stand for tenants."""

import hmac
import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path

from isochrone.router.errors import Unauthenticated
from isochrone.router.process.document import ConfigProblem, SettingsError
from isochrone.router.process.regular_file import open_regular

DEFAULT_TENANT = "default"
"""Who a caller without a key is."""

_LINE = re.compile(r"(?P<tenant>\S+)\s+sha256:(?P<digest>[0-9a-fA-F]{64})(\s+#.*)?")
_BUCKET_BYTES = 4
_MAX_BYTES = 1 << 24


def hash_key(key: str) -> str:
    """How a key stands in a keys file. Keys are long and random, so one round of SHA-256 is enough.

    The same from a shell: `printf %s "$KEY" | sha256sum`.
    """
    return f"sha256:{sha256(key.encode()).hexdigest()}"


class Tenants:
    """Keys to tenants: found by a part of their hash, the whole compared in constant time."""

    def __init__(self, keys: Iterable[tuple[bytes, str]]) -> None:
        """From pairs of SHA-256 digest and tenant."""
        self._buckets: dict[bytes, list[tuple[bytes, str]]] = {}
        for digest, tenant in keys:
            self._buckets.setdefault(digest[:_BUCKET_BYTES], []).append((digest, tenant))

    def tenant_of(self, key: str | None) -> str:
        """The tenant of a key; without a key, the tenant `default`.

        Raises:
            Unauthenticated: the key is unknown.
        """
        if key is None:
            return DEFAULT_TENANT
        digest = sha256(key.encode()).digest()
        for known, tenant in self._buckets.get(digest[:_BUCKET_BYTES], ()):
            if hmac.compare_digest(known, digest):
                return tenant
        raise Unauthenticated("this API key is unknown")


def read_keys(files: Mapping[str, Path]) -> Tenants:
    """The keys of all tenants, from the file that each of them names (several may name one).

    A line is `TENANT sha256:HEX`; empty lines and those that begin with # say nothing.

    Raises:
        SettingsError: a file cannot be read, or a line is not as it should be.
    """
    problems: list[ConfigProblem] = []
    keys: dict[bytes, str] = {}
    for path in dict.fromkeys(files.values()):
        owners = {tenant for tenant, file in files.items() if file == path}
        for number, line in enumerate(_lines(path), 1):
            problem = _fold(line, owners, keys)
            if problem:
                problems.append(_problem(path, number, problem))
    if problems:
        raise SettingsError(problems)
    return Tenants(keys.items())


def _fold(line: str, owners: set[str], keys: dict[bytes, str]) -> str | None:
    """Take one line in; why not, where it cannot be."""
    if not line or line.startswith("#"):
        return None
    match = _LINE.fullmatch(line)
    if match is None:
        return "must be TENANT sha256:HEX with 64 hexadecimal digits"
    if match["tenant"] not in owners:
        return f"must begin with a tenant that names this keys_file ({', '.join(sorted(owners))})"
    digest = bytes.fromhex(match["digest"])
    if keys.setdefault(digest, match["tenant"]) != match["tenant"]:
        return f"must not repeat a key of tenant {keys[digest]}"
    return None


def _lines(path: Path) -> Iterator[str]:
    try:
        with open_regular(path) as file:
            text = file.read(_MAX_BYTES).decode()
    except OSError as error:
        raise SettingsError([_problem(path, 1, f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise SettingsError([_problem(path, 1, "must be UTF-8 text")]) from error
    return (line.strip() for line in text.splitlines())


def _problem(path: Path, line: int, message: str) -> ConfigProblem:
    return ConfigProblem(str(path), line, 1, "", "invalid_key_line", message)
