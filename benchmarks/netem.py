"""The simulated networks held against the kernel's own shaping: three parties as a CURVE-protected deployment in three network namespaces.

Each pair of namespaces is joined by a veth pair, and both ends are shaped by `tc netem` (rate and delay). That needs root, the programs
`ip` and `tc`, and a kernel with netem. Where it has only a token bucket (tbf), the rate alone is checked, with no delay on either side.
As a program, `python -m benchmarks.netem ROLE FOLDER`, this is one of the parties.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import IO, cast

import numpy as np
import yaml

from benchmarks import subjects
from benchmarks.machine import ROOT
from benchmarks.measure import Progress, Wanted
from benchmarks.store import Entry, spread
from threepc.choices import NETWORKS, LinkPreset
from threepc.console import say
from threepc.errors import RunError
from threepc.model.served import ServedModel
from threepc.party import deployment, keygen, three_hosts
from threepc.party.allocator import memory_settings
from threepc.party.one_host import ROLES
from threepc.party.warmup import warm_up_for
from threepc.tasks.observe import log_to_output
from threepc.tasks.provide import serve_until_signal

PRESETS = ("lan", "lan10", "wan", "wan352")
OWN_PRESET = "benchmark"
RUNS = 4
SUBJECT = "resnet18_cifar"
ADDRESSES = {"client": "10.91.0.1", "provider": "10.91.0.2", "server": "10.91.0.3"}
TBF_BURST_S = 0.004
QUEUE_BYTES, QUEUE_PACKETS = 1 << 28, 1 << 17


def run(presets: tuple[str, ...], progress: Progress, wanted: Wanted) -> Iterator[Entry]:
    """An entry for each preset: spreads of seconds not shaped, simulated and really shaped; or `unavailable`, and why."""
    chosen = [name for name in presets if wanted(name)]
    if not chosen:
        return
    missing = lacking()
    if missing:
        yield {"case": "all networks", "unavailable": missing}
        return
    with _namespaces() as names:
        reason = _shaper_missing(names["client"], "netem", *_netem(LinkPreset(1e9, 1e-3)))
        if reason:
            reason = f"this kernel does not shape by netem ({reason})"
            if without := _shaper_missing(names["client"], "tbf", *_tbf(LinkPreset(1e9, 0.0))):
                yield {"case": "all networks", "unavailable": f"{reason} nor by tbf ({without})"}
                return
            yield {"case": "all networks", "unavailable": f"{reason}; only the rates are checked, by tbf and without any delay"}
        served = subjects.assembled(subjects.SUBJECTS[SUBJECT], 48).served
        warm_up_for(served.public, progress)  # so that no party compiles while the others wait for it
        how = "tbf, rate alone" if reason else "netem, rate and delay"
        progress("namespaces without shaping")
        unshaped = _time(names, served, None)
        for name, preset in _presets(chosen, bool(reason)).items():
            progress(f"{name}, simulated")
            simulated = _time(names, served, preset)
            progress(f"{name}, shaped by {how}")
            with _shaped(names, "tbf" if reason else "netem", *(_tbf(preset) if reason else _netem(preset))):
                real = _time(names, served, None)
            yield {"case": name, "subject": SUBJECT, "how": how, "unshaped": unshaped, "simulated": simulated, "real": real}


def _presets(names: list[str], rate_alone: bool) -> dict[str, LinkPreset]:
    """The presets of these names, each that differs once; rate_alone: without their delay."""
    presets: dict[LinkPreset, str] = {}
    for name in names:
        preset = NETWORKS[name]
        if preset is not None:
            presets.setdefault(LinkPreset(preset.rate_bits_per_s, 0.0) if rate_alone else preset, name)
    return {name: preset for preset, name in presets.items()}


def lacking() -> str | None:
    """What keeps this process from making network namespaces, or None."""
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            return f"the program {tool} is not installed (package iproute2)"
    if os.geteuid() != 0:
        return "making network namespaces needs root: run as root, or in a container with --cap-add NET_ADMIN --cap-add SYS_ADMIN"
    name = f"threepc-try-{os.getpid()}"
    try:
        _command("ip", "netns", "add", name)
        _command("ip", "netns", "del", name)
    except RunError as error:
        return f"no right to make network namespaces: {error}"
    return None


def _netem(network: LinkPreset) -> list[str]:
    delay = f"{network.one_way_delay_s * 1e6:.0f}us"
    return ["rate", f"{network.rate_bits_per_s:.0f}bit", "delay", delay, "limit", str(QUEUE_PACKETS)]


def _tbf(network: LinkPreset) -> list[str]:
    burst = max(1 << 17, int(network.rate_bits_per_s / 8 * TBF_BURST_S))
    return ["rate", f"{network.rate_bits_per_s:.0f}bit", "burst", str(burst), "limit", str(QUEUE_BYTES)]


def _command(*words: str) -> None:
    finished = subprocess.run(words, check=False, capture_output=True, text=True)
    if finished.returncode:
        raise RunError(f"{' '.join(words)}: {' '.join(finished.stderr.split())}")


@contextlib.contextmanager
def _namespaces() -> Iterator[dict[str, str]]:
    """Three namespaces, joined pairwise: role -> name. Each party has one address on all its links."""
    names = {role: f"threepc-{role}-{os.getpid()}" for role in ROLES}
    made = []
    try:
        for name in names.values():
            _command("ip", "netns", "add", name)
            made.append(name)
            _command("ip", "-n", name, "link", "set", "lo", "up")
        for one, two in combinations(ROLES, 2):
            _command("ip", "link", "add", two, "netns", names[one], "type", "veth", "peer", "name", one, "netns", names[two])
            for here, there in ((one, two), (two, one)):
                _command("ip", "-n", names[here], "address", "add", f"{ADDRESSES[here]}/32", "dev", there)
                _command("ip", "-n", names[here], "link", "set", there, "up")
                _command("ip", "-n", names[here], "route", "add", ADDRESSES[there], "dev", there, "src", ADDRESSES[here])
        yield names
    finally:
        for name in made:
            _command("ip", "netns", "del", name)


@contextlib.contextmanager
def _shaped(names: dict[str, str], kind: str, *settings: str) -> Iterator[None]:
    """Both ends of every link under a queueing discipline."""
    ends = [(names[here], there) for pair in combinations(ROLES, 2) for here, there in (pair, pair[::-1])]
    for name, device in ends:
        _command("tc", "-n", name, "qdisc", "add", "dev", device, "root", kind, *settings)
    try:
        yield
    finally:
        for name, device in ends:
            _command("tc", "-n", name, "qdisc", "del", "dev", device, "root")


def _shaper_missing(name: str, kind: str, *settings: str) -> str | None:
    """Why a queueing discipline cannot be used, or None."""
    try:
        _command("tc", "-n", name, "qdisc", "add", "dev", "lo", "root", kind, *settings)
        _command("tc", "-n", name, "qdisc", "del", "dev", "lo", "root")
    except RunError as error:
        return str(error).rpartition(": ")[2].rstrip(".")
    return None


def _time(names: dict[str, str], served: ServedModel, simulated: LinkPreset | None) -> Entry:
    """The spread of an inference's seconds over the namespaces, phases overlapped."""
    with tempfile.TemporaryDirectory(prefix="threepc-") as temporary, contextlib.ExitStack() as running:
        folder = Path(temporary)
        keygen.generate(folder)
        file = folder / deployment.FILE_NAME
        settings = yaml.safe_load(file.read_text())
        for role in ("server", "provider"):
            settings[role]["address"] = settings[role]["address"].replace("127.0.0.1", ADDRESSES[role])
        if simulated is not None:
            settings["network"] = OWN_PRESET
            (folder / "preset.json").write_text(json.dumps([simulated.rate_bits_per_s, simulated.one_way_delay_s]))
        file.write_text(yaml.safe_dump(settings))
        with (folder / "model.npz").open("wb") as stream:
            served.write(stream)
        for role in ("provider", "server"):
            if not running.enter_context(_party(names[role], role, folder)).readline():
                raise RunError(f"the {role} did not start in its namespace")
        with _party(names["client"], "client", folder) as said:
            line = said.readline()
        if not line:
            raise RunError("the client in its namespace has failed")
        return spread(json.loads(line))


@contextlib.contextmanager
def _party(namespace: str, role: str, folder: Path) -> Iterator[IO[str]]:
    """One of the parties in its namespace, until the end of the context; gives what it says."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | memory_settings()
    command = ["ip", "netns", "exec", namespace, sys.executable, "-m", "benchmarks.netem", role, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield cast(IO[str], process.stdout)
        finally:
            process.terminate()


def party(role: str, folder: Path) -> None:
    """Be one party. The server and the provider print their address and serve until terminated; the client prints seconds, as JSON."""
    preset = folder / "preset.json"
    if preset.exists():
        NETWORKS[OWN_PRESET] = LinkPreset(*json.loads(preset.read_text()))
    agreed = deployment.load(folder / deployment.FILE_NAME)
    log_to_output()
    if role == "provider":
        serve_until_signal(three_hosts.open_provider(agreed), agreed, grace=30.0)
    elif role == "server":
        with (folder / "model.npz").open("rb") as file:
            server = three_hosts.open_server(agreed, ServedModel.read(file))
        serve_until_signal(server, agreed, grace=30.0)
    else:
        with three_hosts.open_client(agreed) as session:
            image = np.zeros((1, *session.model.graph.input.shape), np.float32)
            seconds = [session.infer(image)[1].seconds["total"] for _ in range(RUNS + 1)]
        say(json.dumps(seconds[1:]))


if __name__ == "__main__":
    party(sys.argv[1], Path(sys.argv[2]))
