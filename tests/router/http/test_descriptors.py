"""Descriptors: a limit that is raised, connections that fit, and errors that blame no endpoint."""

import errno
import logging
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from isochrone.router.http.descriptors import fitted, is_local, raised_limit
from isochrone.router.http.limits import Limits

REGIONS = """
regions:
  eu-west: {location: {latitude: 53.3, longitude: -6.3}, jurisdiction: eu}
tenants:
  default: {require: any}
"""
LOCAL = [errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM]
REMOTE = [errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.ECONNRESET]


@pytest.mark.parametrize("number", LOCAL)
def test_what_this_machine_lacks_is_local(number):
    assert is_local(OSError(number, "no"))


@pytest.mark.parametrize("number", REMOTE)
def test_what_an_endpoint_did_is_not(number):
    assert not is_local(OSError(number, "no"))


def test_a_resolver_without_memory_or_descriptors_is_local():
    assert is_local(socket.gaierror(socket.EAI_SYSTEM, "no"))
    assert not is_local(socket.gaierror(socket.EAI_NONAME, "no"))


def test_connections_fit_the_limit_of_open_files_and_less_is_said(caplog):
    caplog.set_level(logging.WARNING)
    limits = Limits(connections=4096)
    assert fitted(limits, 1 << 20, for_each=2) is limits
    assert fitted(limits, None, for_each=2) is limits
    assert caplog.text == ""
    assert fitted(limits, 1024, for_each=2).connections == (1024 - 64) // 2
    assert "connections_clamped" in caplog.text
    assert fitted(limits, 40, for_each=2).connections == 15
    assert fitted(limits, 1, for_each=2).connections == 1


def test_the_limit_is_raised_as_far_as_it_may_be():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowered = min(soft, 256)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowered, hard))
    try:
        assert raised_limit() == min(hard, 1 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_without_descriptors_condemns_no_endpoint():
    done = subprocess.run(
        [sys.executable, "-m", "tests.router.http.starved", "64"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr


def test_a_router_with_few_descriptors_takes_as_many_clients_as_it_can_serve(tmp_path):
    """Beyond that a client is told so, and the endpoints stay in."""
    (tmp_path / "regions.yaml").write_text(REGIONS)
    config = {
        "name": "r1",
        "region": "eu-west",
        "regions_file": "regions.yaml",
        "listen": "127.0.0.1:0",
        "admin": {"listen": "127.0.0.1:0"},
        "enrolment": {"allowed_networks": []},
        "log": {"format": "json"},
    }
    path = tmp_path / "router.yaml"
    path.write_text(yaml.safe_dump(config))
    process = few_descriptors(path, 96)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split("http://")[1].strip()
        host, port = address.split(":")
        clients = [socket.create_connection((host, int(port)), 5) for _ in range(60)]
        answers = [asked(client) for client in clients]
        for client in clients:
            client.close()
        most = (96 - 24) // 2
        assert answers.count("200") == most
        assert answers.count("503") == 60 - most
        until_s = time.monotonic() + 10
        while True:
            with socket.create_connection((host, int(port)), 5) as client:
                again = asked(client)
            if again == "200":
                break
            assert time.monotonic() < until_s, again
    finally:
        process.terminate()
        _, log = process.communicate(timeout=30)
    assert '"connections_clamped"' in log


def few_descriptors(path: Path, most: int) -> subprocess.Popen[str]:
    started = (
        "import resource, sys; from pathlib import Path; from isochrone.router.daemon import main;"
    )
    started += f"resource.setrlimit(resource.RLIMIT_NOFILE, ({most // 2}, {most}));"
    started += "sys.exit(main(Path(sys.argv[1])))"
    return subprocess.Popen(
        [sys.executable, "-c", started, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def asked(client: socket.socket) -> str:
    client.settimeout(10)
    client.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: r\r\n\r\n")
    return client.recv(1024).split(b" ")[1].decode()
