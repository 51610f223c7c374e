"""What is opened as a regular file, and what is refused at once."""

import os
import socket
from pathlib import Path

import pytest

from isochrone.edge_agent.artefacts import http, signature
from isochrone.edge_agent.guard import guard_of
from isochrone.edge_agent.runtime.package.package import MANIFEST, PackageError, open_package
from isochrone.router.errors import ConfigError
from isochrone.router.law.tenants import read_keys
from isochrone.router.process.regular_file import open_regular


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "fifo")
    return folder / "fifo"


def bound(folder: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
    return folder / "s"


KINDS = {
    "a FIFO": fifo,
    "a socket": bound,
    "a directory": lambda folder: folder,
    "a device": lambda _: Path("/dev/zero"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file_is_named(tmp_path, kind):
    with pytest.raises(OSError, match="is no regular file") as refused:
        open_regular(KINDS[kind](tmp_path))
    assert refused.value.strerror == f"{kind} is no regular file"


def test_a_link_to_a_regular_file_is_followed(tmp_path):
    """As a ConfigMap of Kubernetes is mounted."""
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to("file")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"text"


def manifest(path: Path) -> object:
    package = path.parent / "m" / "1"
    package.mkdir(parents=True)
    (package / MANIFEST).symlink_to(path)
    return open_package(package)


READERS = {
    "the administrators' token": guard_of,
    "a source's token": http._token,
    "trusted keys": signature._keys_in,
    "tenants' keys": lambda path: read_keys({"t": path}),
    "a manifest": manifest,
}


@pytest.mark.parametrize("reader", READERS)
def test_no_reader_of_an_operators_file_waits_for_a_fifo(tmp_path, reader):
    with pytest.raises((ConfigError, PackageError), match="a FIFO is no regular file"):
        READERS[reader](fifo(tmp_path))
