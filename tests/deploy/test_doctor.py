"""`isochrone doctor`: a line for everything that an agent needs, and what to do where it lacks."""

import json
import os
import shutil
import signal
import socket
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from isochrone.deploy import doctor
from isochrone.deploy.call import Reply
from isochrone.deploy.cli import PROBLEM, main
from isochrone.deploy.doctor import Finding, examined
from isochrone.deploy.packages.signing import keygen, sign
from isochrone.router.wire.report import SeenAgent
from tests.conftest import write_double
from tests.system.town import Town, wait_until


@pytest.fixture
def folder(tmp_path):
    """A configuration with one good package."""
    write_double(tmp_path / "packages")
    return tmp_path


def write(folder, **changes):
    config = {
        "name": "shop",
        "region": "eu-west",
        "listen": "127.0.0.1:0",
        "admin": {"listen": "127.0.0.1:0"},
        "packages": "packages",
        "keep_warm": ["double"],
        "state_file": "agent.state",
        **changes,
    }
    path = folder / "agent.yaml"
    path.write_text(json.dumps(config))
    return path


def found(path, what):
    return [finding for finding in examined(path) if finding.what == what]


def states(path, what):
    return [finding.state for finding in found(path, what)]


def test_a_sound_machine_gets_no_fail(folder, capsys):
    path = write(folder)
    assert main(["doctor", "--config", str(path), "--json", str(folder / "told.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = json.loads((folder / "told.json").read_text())
    assert (told["schema"], told["ok"]) == ("isochrone.doctor/1", True)
    assert [check["what"] for check in told["checks"]] == [line.split()[1] for line in lines]
    assert {check["what"] for check in told["checks"]} >= {"config", "models", "memory", "disk"}


def test_without_a_configuration_there_is_no_more_to_look_at(folder, capsys):
    path = write(folder, slotz=2)
    assert main(["doctor", "--config", str(path)]) == PROBLEM
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("fail  config")
    assert "slotz" in line


def spoil(folder):
    graph = folder / "packages" / "double" / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")


def break_manifest(folder):
    (folder / "packages" / "double" / "1" / "model.yaml").write_text("name: double\n")


MODELS = {
    "a flipped byte": (spoil, "sha256"),
    "a broken manifest": (break_manifest, "model.yaml"),
    "no packages": (lambda folder: shutil.rmtree(folder / "packages"), "no directory"),
}


@pytest.mark.parametrize(("harm", "said"), MODELS.values(), ids=MODELS)
def test_models_that_cannot_be_used_are_a_fail(folder, harm, said):
    path = write(folder)
    harm(folder)
    failing = [finding for finding in found(path, "models") if finding.state == "fail"]
    assert any(said in finding.found for finding in failing)


def test_a_model_that_is_to_be_kept_warm_and_is_not_here_is_a_fail(folder):
    (finding,) = [f for f in found(write(folder, keep_warm=["digits"]), "models") if f.remedy]
    assert (finding.state, "digits" in finding.found) == ("fail", True)


def test_signatures_are_held_against_the_trusted_keys(folder):
    list(keygen(folder / "mine"))
    key = (folder / "mine.pub").read_text().strip()
    path = write(folder, artefacts={"trusted_keys": [key]})
    assert "fail" in states(path, "models"), "it is unsigned"
    list(sign(folder / "packages" / "double" / "1", folder / "mine.key"))
    assert states(path, "models") == ["ok"]
    write(folder, artefacts={"trusted_key_files": ["nowhere.pub"]})
    assert states(path, "models") == ["fail"]


TOKENS = {
    "for the agent alone": (b"0123456789abcdef", 0o600, "ok"),
    "for its group": (b"0123456789abcdef", 0o640, "ok"),
    "for everybody": (b"0123456789abcdef", 0o644, "fail"),
    "too short": (b"0123", 0o600, "fail"),
}


@pytest.mark.parametrize(("token", "mode", "state"), TOKENS.values(), ids=TOKENS)
def test_the_token_is_a_secret(folder, token, mode, state):
    path = write(folder, admin={"listen": "127.0.0.1:0", "token_file": "token"})
    (folder / "token").write_bytes(token)
    (folder / "token").chmod(mode)
    assert states(path, "token") == [state]


def test_models_that_do_not_fit_are_a_fail(folder, monkeypatch):
    path = write(folder)
    monkeypatch.setattr(doctor, "RUNTIME_BYTES", 1 << 60)
    (finding,) = found(path, "memory")
    assert (finding.state, "fewer models" in finding.remedy) == ("fail", True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"slots": 2, "threads": 1}, [("ok", "2, for 2 runs at once of 1 thread(s)")]),
        ({"slots": 64}, [("warn", "slots: 64 on 2 cores; 2 is used")]),
        ({"threads": 16}, [("warn", "threads: 16 on 2 cores; 2 is used")]),
    ],
)
def test_more_than_the_cores_is_said(folder, monkeypatch, changes, said):
    monkeypatch.setattr(doctor, "usable_cores", lambda: 2.0)
    lines = [(one.state, one.found) for one in found(write(folder, **changes), "cores")]
    assert lines == said


def test_a_used_port_is_a_fail(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert states(write(folder, admin={"listen": address}), "ports") == ["ok", "fail"]


DISKS = {
    "a folder that is not there": ({"access_log": "nowhere/access.jsonl"}, "fail"),
    "no state file": ({"state_file": None}, "warn"),
}


@pytest.mark.parametrize(("changes", "state"), DISKS.values(), ids=DISKS)
def test_what_is_written_to_is_looked_at(folder, changes, state):
    path = write(folder, **changes)
    assert state in states(path, "disk")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_a_fail(folder):
    (folder / "closed").mkdir(mode=0o500)
    assert "fail" in states(write(folder, access_log="closed/access.jsonl"), "disk")


class RouterOfOurs(HTTPServer):
    """Answers everything with `status` and `date`."""

    status = 404
    date = ""


class Scripted(BaseHTTPRequestHandler):
    """What one request gets."""

    server: RouterOfOurs

    def do_GET(self):
        self.send_response_only(self.server.status)
        if self.server.date:
            self.send_header("Date", self.server.date)
        body = b'{"error":"no","code":"no"}'
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing is written."""


@pytest.fixture
def router():
    server = RouterOfOurs(("127.0.0.1", 0), Scripted)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def joined_to(folder, router):
    return write(folder, routers=[{"url": f"http://127.0.0.1:{router.server_port}"}])


ANSWERS = {
    403: ("fail", "allowed_networks"),
    404: ("warn", "start it"),
    500: ("fail", "is this URL a router's"),
}


@pytest.mark.parametrize("status", ANSWERS)
def test_what_a_router_says_leads_to_what_to_do(folder, router, status):
    router.status = status
    (finding,) = found(joined_to(folder, router), "router")
    state, remedy = ANSWERS[status]
    assert (finding.state, remedy in finding.remedy) == (state, True)


CLOCKS = {
    "none": ("", "warn"),
    "no date": ("yesterday", "warn"),
    "two days behind": ("Sat, 01 Jan 2000 00:00:00 GMT", "warn"),
}


@pytest.mark.parametrize(("date", "state"), CLOCKS.values(), ids=CLOCKS)
def test_the_clock_is_held_against_the_routers(folder, router, date, state):
    router.date = date
    assert states(joined_to(folder, router), "clock") == [state]


@pytest.mark.parametrize(
    ("ahead_s", "told"),
    [
        (0.0, "as http://r has it, within 1.1 s"),
        (0.999, "as http://r has it, within 1.1 s"),
        (1.09, "as http://r has it, within 1.1 s"),
        (2.6, "3 s ahead of http://r"),
        (-5.4, "5 s behind http://r"),
    ],
)
def test_a_clock_is_off_only_by_what_the_date_cannot_explain(monkeypatch, ahead_s, told):
    """The Date header has whole seconds: the same clock seems up to one second ahead."""
    monkeypatch.setattr(doctor, "wall", lambda: 1_700_000_000 + ahead_s)
    date = formatdate(1_700_000_000, usegmt=True).encode()
    answer = Reply(200, [(b"date", date)], b"", seconds=0.1)
    assert str(doctor._clock("http://r", answer)) == str(Finding("clock", "ok", told))


def test_a_budget_that_what_is_kept_warm_does_not_fit_is_a_fail(folder):
    (finding,) = found(write(folder, memory={"budget_bytes": 10}), "memory")
    assert finding.state == "fail"
    assert finding.found.startswith("memory.budget_bytes is 10 B, what is kept warm has ")
    assert states(write(folder, memory={"budget_bytes": 10, "overcommit": True}), "memory") != [
        "fail"
    ]


def test_a_variant_that_no_package_has_is_found(folder, capsys):
    path = write(folder, models={"double": {"variant": "nosuch"}})
    (finding,) = (one for one in found(path, "models") if one.state == "fail")
    assert finding.found.startswith("models.double.variant names nosuch, and double 1 has ")
    assert main(["check", "--config", str(path)]) == PROBLEM
    assert "models.double.variant names nosuch, and double 1 has " in capsys.readouterr().out


def test_a_router_that_is_away_is_a_fail(folder):
    path = write(folder, routers=[{"url": "http://127.0.0.1:1"}])
    assert states(path, "router") == ["fail"]


def test_an_advertised_loopback_is_named_as_the_cause():
    seen = SeenAgent("shop", "http://127.0.0.1:8090", "eu-west", "2 probes missed")
    assert "advertise" in doctor._seen("http://203.0.113.1:80", seen).remedy
    assert "firewall" in doctor._seen("http://127.0.0.1:80", seen).remedy


def test_a_line_says_all():
    assert str(Finding("disk", "fail", "it is full", "make room")) == (
        "fail  disk      it is full; make room"
    )


def test_a_running_agent_and_its_routers_view_of_it(tmp_path, store):
    town = Town(tmp_path, store)
    try:
        agent = town.agent("shop")
        path = next(tmp_path.glob("shop-*/agent.yaml"))
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "listen": agent.address}))
        wait_until(lambda: "ok" in states(path, "router"))
        assert states(path, "clock") == ["ok"]
        assert states(path, "agent") == ["ok"]
        assert "is ready" in found(path, "ports")[0].found
        agent.signal(signal.SIGSTOP)
        try:
            wait_until(lambda: "fail" in states(path, "router"))
        finally:
            agent.signal(signal.SIGCONT)
    finally:
        town.end()
