"""One party as a process of its own on this machine: `python -m threepc.party.worker ROLE DIRECTORY`, started and steered by `local`.

DIRECTORY, of mode 0700, holds settings.json, for the server also the model, and the sockets. The starter's control channel says what to do;
when it ends, so does the process.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path

import numpy as np

from threepc.choices import NETWORKS
from threepc.errors import ThreepcError
from threepc.files import read_json
from threepc.model.served import ServedModel
from threepc.party.client import ClientSession
from threepc.party.connector import ZmqConnector
from threepc.party.provider import ProviderParty
from threepc.party.server import ServerParty
from threepc.party.session import Options
from threepc.transport import zmq_dealer
from threepc.transport.channel import Channel
from threepc.transport.keys import KeyPair
from threepc.transport.shaping import Shaper

LOG_VARIABLE = "THREEPC_LOG"
"""In the environment: the level from which the three processes log to standard error."""


def options_of(settings: dict) -> Options:
    """Options from settings.json; shapers of one link direction are shared by its connections."""
    preset, pipes = NETWORKS[settings["network"]], {}

    def shaper(sender: str, receiver: str) -> Shaper | None:
        if preset is None:
            return None
        key = (sender, receiver) if receiver != "peer" else (sender, "server")
        return pipes.setdefault(key, Shaper(preset.rate_bits_per_s, preset.one_way_delay_s))

    return Options(settings["timeout"], settings["budget"], settings["threads"], shaper)


def main(role: str, directory: Path) -> int:
    """Run until the control channel ends or says so. Returns the exit status."""
    # what ends a session reaches the starter as an error, once; every party's view of it is for debugging
    logging.basicConfig(level=os.environ.get(LOG_VARIABLE, "CRITICAL"), format=f"{role}: %(message)s", stream=sys.stderr)
    settings = read_json(directory / "settings.json", "the settings")
    keys = KeyPair.new() if settings["transport"] == "tcp" else None
    control = Channel(zmq_dealer.connect(f"ipc://{directory}/control", name="the starter"), (role, "starter"), timeout=None)
    control.send_control("hello", {"role": role, "public": keys.public.decode() if keys else ""})
    try:
        _run(role, directory, settings, keys, control)
    except ThreepcError as error:
        control.send_control("failed", {"reason": str(error), "exit_status": error.exit_status})
        return error.exit_status
    finally:
        control.close()
    return 0


def _run(role: str, directory: Path, settings: dict, keys: KeyPair | None, control: Channel) -> None:
    options, told = options_of(settings), control.receive_control("start").fields
    public = {name: key.encode() for name, key in told["public"].items()}
    addresses = dict(told["addresses"])
    if role == "client":
        while "provider" not in addresses or "server" not in addresses:
            addresses |= control.receive_control("addresses").fields
        _client(ZmqConnector(addresses, keys, public, timeout=options.timeout), options, control)
        return
    authorised = tuple(public[name] for name in (("client",) if role == "server" else ("client", "server")) if name in public)
    mine = f"ipc://{directory}/{role}" if keys is None else "tcp://127.0.0.1:0"
    connector = ZmqConnector(addresses | {role: mine}, keys, public, authorised, options.timeout)
    party = ServerParty(ServedModel.load(directory), connector, options) if role == "server" else ProviderParty(connector, options)
    serving = threading.Thread(target=party.serve, name="serve")
    serving.start()
    try:
        control.send_control("listening", {"address": party.address})
        control.receive_control("stop")
    finally:
        party.stop()
        serving.join()


def _client(connector: ZmqConnector, options: Options, control: Channel) -> None:
    with ClientSession(connector, options) as session:
        control.send_control("ready", {"seconds": session.setup_seconds, "links": session.setup_links})
        while True:
            request = control.receive_control("infer", "stop")
            if request.kind == "stop":
                return
            shape = tuple(request.fields["shape"])
            (pixels,) = control.receive(0, [(np.uint32, shape)])
            logits, record = session.infer(pixels.view(np.float32), request.fields["separate"])
            control.send_control("result", {"shape": logits.shape, "record": record.to_plain()})
            control.send(0, [np.ascontiguousarray(logits).view(np.uint64)], "online")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
