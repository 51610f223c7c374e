"""What the service manager hears, over a socket of the test's own."""

import os
import signal
import socket
import subprocess
import sys
import time
from random import Random

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from isochrone.edge_agent.app import Agent
from isochrone.edge_agent.config import AgentConfig
from isochrone.edge_agent.notify import STUCK_S, Headway, Supervisor, supervisor_of
from isochrone.edge_agent.runtime.calls.knock import admitted

START_S = 30


class Listening:
    """The service manager's side."""

    def __init__(self, address):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)

    def next(self, within_s=START_S):
        """The next message, or None."""
        self._socket.settimeout(within_s)
        try:
            return self._socket.recv(4096).decode().splitlines()
        except TimeoutError:
            return None

    def drop_what_waits(self):
        while self.next(0.001) is not None:
            pass

    def close(self):
        self._socket.close()


@pytest.fixture
def manager_side(tmp_path):
    made = Listening(str(tmp_path / "notify"))
    yield made
    made.close()


@pytest.fixture
def agent(tmp_path, store, manager_side):
    del manager_side  # it listens before the agent starts
    config = {
        "name": "edge-1",
        "region": "eu-west",
        "listen": "127.0.0.1:0",
        "admin": {"listen": "127.0.0.1:0"},
        "packages": str(store),
        "keep_warm": ["double"],
    }
    path = tmp_path / "agent.yaml"
    path.write_text(yaml.safe_dump(config))
    told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
    process = subprocess.Popen(
        [sys.executable, "-m", "isochrone.edge_agent", str(path)],
        env={**os.environ, **told},  # noqa: TID251  # the child's, not ours
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield process
    process.kill()
    process.wait()


def test_a_manager_hears_of_an_agents_whole_life(agent, manager_side):
    heard = []
    while (lines := manager_side.next()) == ["WATCHDOG=1"]:
        heard.append(lines)
    assert lines is not None
    assert lines[0] == "READY=1"
    assert lines[1].startswith("STATUS=serving on http://127.0.0.1:")
    assert [manager_side.next() for _ in range(4)] == [["WATCHDOG=1"]] * 4
    agent.send_signal(signal.SIGSTOP)
    manager_side.drop_what_waits()
    assert manager_side.next(0.6) is None, "a process that hangs gives no sign"
    agent.send_signal(signal.SIGCONT)
    assert manager_side.next() == ["WATCHDOG=1"]
    agent.send_signal(signal.SIGTERM)
    while (lines := manager_side.next()) == ["WATCHDOG=1"]:
        pass
    assert lines == ["STOPPING=1", "STATUS=draining"]
    assert agent.wait(START_S) == 0


@pytest.mark.parametrize(
    ("environment", "watchdog_s"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({"WATCHDOG_USEC": "30000000"}, 30.0, id="no process named"),
        pytest.param({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0, id="this process"),
        pytest.param({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None, id="another"),
        pytest.param({"WATCHDOG_USEC": "soon"}, None, id="no number"),
        pytest.param({"WATCHDOG_USEC": "0"}, None, id="off"),
    ],
)
def test_the_environment_says_how_often_and_is_not_passed_on(environment, watchdog_s):
    environment = {"NOTIFY_SOCKET": "/nowhere", "HOME": "/", **environment}
    assert supervisor_of(environment, 7).watchdog_s == watchdog_s
    assert environment == {"HOME": "/"}


def test_an_abstract_address_is_understood():
    address = f"isochrone-test-{os.getpid()}"
    side = Listening(f"\0{address}")
    Supervisor(f"@{address}").ready("here")
    assert side.next() == ["READY=1", "STATUS=here"]
    side.close()


@pytest.mark.parametrize("address", ["", "/nowhere/at/all"], ids=["none", "gone"])
def test_a_manager_that_is_not_there_costs_nothing(address):
    Supervisor(address).alive()


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 1), st.booleans()), min_size=1))
def test_only_slots_that_are_all_held_for_long_with_nothing_done_are_stuck(looks):
    progress, now_s, finished = Headway(stuck_s=60), 0.0, 0
    since_s = 0.0
    for number, (later_s, more, full) in enumerate(looks):
        now_s, finished = now_s + later_s, finished + more
        if more or not full or not number:
            since_s = now_s
        assert progress.on(finished, now_s, full=full) == (now_s - since_s < 60)


async def test_an_agent_whose_threads_all_hang_gives_no_sign(store):
    now_s = time.monotonic()
    config = AgentConfig(name="e", region="eu", packages=store, slots=1)
    agent = Agent(config, clock=time.monotonic, wall=lambda: 0.0, rng=Random(1))
    lease = await admitted(agent.gate, now_s + 60, 5)
    assert agent.progresses(now_s)
    assert not agent.progresses(now_s + STUCK_S)
    agent._served("double", 0.0, 0.1)
    assert agent.progresses(now_s + STUCK_S)
    lease.release()
    assert agent.progresses(now_s + 9 * STUCK_S)
    await agent.pool.close()
