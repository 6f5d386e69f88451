"""Three hosts as three network namespaces, joined by a bridge in a fourth; each has its own address, routes and sockets, as three machines do.

      client               server              provider
    10.77.0.1            10.77.0.2            10.77.0.3
        |                    |                    |
      eth0 (veth)          eth0 (veth)          eth0 (veth)
        |                    |                    |
    ----+--------------------+--------------------+----   bridge, in a namespace of its own
                  each cable has a rate (tbf) and can be pulled

A pulled cable drops packets and closes nothing: what a blackholed host looks like. Needs root and iproute2.
"""

import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.processes import Running
from threepc.party.keygen import generate

ADDRESSES = {"client": "10.77.0.1", "server": "10.77.0.2", "provider": "10.77.0.3"}
SILENT_FOR_S = 6
"""The answer time-out where a host falls silent; elsewhere it is a long one, which a busy machine keeps."""


def ip(*words: object) -> subprocess.CompletedProcess:
    return subprocess.run(["ip", *map(str, words)], capture_output=True, text=True, check=False)


def reason_against() -> str:
    """Why namespaces cannot be made here, "" where they can."""
    if not shutil.which("ip") or not shutil.which("tc"):
        return "iproute2 is not installed"
    if os.geteuid() != 0:
        return "only root makes network namespaces"
    name = f"threepc-{uuid.uuid4().hex[:6]}"
    made = ip("netns", "add", name)
    ip("netns", "del", name)
    return made.stderr.strip()


WHY_NOT = reason_against()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)


class Lan:
    """The three hosts and what joins them."""

    def __init__(self) -> None:
        mark = uuid.uuid4().hex[:6]
        self.names = {host: f"threepc-{mark}-{host}" for host in (*ADDRESSES, "bridge")}
        for name in self.names.values():
            self._must("netns", "add", name)
            self._must("-n", name, "link", "set", "lo", "up")
        bridge = self.names["bridge"]
        self._must("-n", bridge, "link", "add", "br0", "type", "bridge")
        self._must("-n", bridge, "link", "set", "br0", "up")
        for host, address in ADDRESSES.items():
            name = self.names[host]
            self._must("link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", host, "netns", bridge)
            self._must("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            self._must("-n", name, "link", "set", "eth0", "up")
            self._must("-n", bridge, "link", "set", host, "master", "br0", "up")

    @staticmethod
    def _must(*words: object) -> None:
        done = ip(*words)
        assert done.returncode == 0, f"ip {' '.join(map(str, words))}: {done.stderr}"

    def limit(self, host: str, rate: str) -> None:
        """Give a host's cable a rate, both ways."""
        for namespace, device in ((self.names[host], "eth0"), (self.names["bridge"], host)):
            shaped = ["netns", "exec", namespace, "tc", "qdisc", "replace", "dev", device, "root", "tbf", "rate", rate]
            self._must(*shaped, "burst", "64kb", "latency", "200ms")

    def pull(self, host: str) -> None:
        """Nothing reaches the host, nothing leaves it, no connection closes."""
        self._must("-n", self.names["bridge"], "link", "set", host, "nomaster")

    def plug_in(self, host: str) -> None:
        """Join it again."""
        self._must("-n", self.names["bridge"], "link", "set", host, "master", "br0")

    def run(self, host: str, *arguments: object, folder: Path) -> Running:
        """A `threepc` command on a host."""
        return Running([str(a) for a in arguments], folder, before=["ip", "netns", "exec", self.names[host]])

    def close(self) -> None:
        """Take everything away."""
        for name in self.names.values():
            ip("netns", "del", name)


@pytest.fixture
def lan() -> Iterator[Lan]:
    lan = Lan()
    yield lan
    lan.close()


@pytest.fixture
def answer_s() -> int:
    """The answer time-out of a deployment, unless a test says another."""
    return 60


@pytest.fixture
def hosts(lan, workplace, tmp_path, answer_s) -> Iterator[tuple[Lan, Path, dict[str, Running]]]:
    """Server and provider, each on its host; the deployment."""
    generate(tmp_path / "keys")
    path = tmp_path / "keys" / "deployment.yaml"
    text = path.read_text()
    for host, port in (("server", 7001), ("provider", 7002)):
        assert f"127.0.0.1:{port}" in text
        text = text.replace(f"tcp://127.0.0.1:{port}", f"tcp://{ADDRESSES[host]}:{port}")
    for old, new in (("connect: ", 20), ("answer: ", answer_s)):
        before, _, after = text.partition(old)
        text = f"{before}{old}{new}{after[len(after.split()[0]) :]}"
    path.write_text(text)
    parties = {
        "provider": lan.run("provider", "provider", "--deployment", path, folder=workplace),
        "server": lan.run("server", "server", "factories:small", "--deployment", path, folder=workplace),
    }
    for running in parties.values():
        running.wait_for("listens at tcp://10.77.0.")
    yield lan, path, parties
    for running in parties.values():
        assert running.stop() == 0


def test_a_client_on_another_host_is_served_and_a_slow_cable_changes_no_answer(hosts, workplace, tmp_path):
    lan, path, _ = hosts
    answers = []
    for rate in ("1gbit", "20mbit"):
        for host in ADDRESSES:
            lan.limit(host, rate)
        folder = tmp_path / rate
        client = lan.run("client", "client", "--deployment", path, "--input", "one.png", "--output", folder, folder=workplace)
        assert client.end() == 0, client.errors
        answers.append(np.load(folder / "logits.npy"))
        assert answers[-1].shape == (1, 4)
    np.testing.assert_allclose(answers[0], answers[1], atol=0.005 * np.abs(answers[0]).max())


@pytest.mark.parametrize("answer_s", (SILENT_FOR_S,))
@pytest.mark.parametrize("host", ("server", "provider"))
def test_a_blackholed_host_is_noticed_and_the_next_client_served(hosts, workplace, host, tmp_path):
    lan, path, parties = hosts
    for each in ADDRESSES:
        lan.limit(each, "1mbit")  # so slow that the session lasts
    client = lan.run("client", "client", "--deployment", path, "--input", *["one.png"] * 200, folder=workplace)
    parties["server"].wait_for(r"1 image\(s\) in")
    lan.pull(host)
    assert client.end() == 1
    assert "key" not in client.failure
    assert f"{ADDRESSES['server']}:7001" in client.failure or f"{ADDRESSES['provider']}:7002" in client.failure
    lan.plug_in(host)
    for each in ADDRESSES:
        lan.limit(each, "1gbit")
    following = lan.run("client", "client", "--deployment", path, "--input", "one.png", "--output", tmp_path, folder=workplace)
    assert following.end() == 0, following.errors
    assert np.load(tmp_path / "logits.npy").shape == (1, 4)


def test_a_killed_host_is_noticed(hosts, workplace):
    lan, path, parties = hosts
    for each in ADDRESSES:
        lan.limit(each, "1mbit")
    client = lan.run("client", "client", "--deployment", path, "--input", *["one.png"] * 200, folder=workplace)
    parties["server"].wait_for(r"1 image\(s\) in")
    parties["server"].process.send_signal(signal.SIGKILL)
    assert client.end() == 1
    assert f"{ADDRESSES['server']}:7001" in client.failure
    parties["server"].end()
    parties["server"] = lan.run("server", "server", "factories:small", "--deployment", path, folder=workplace)
    parties["server"].wait_for("listens at")
