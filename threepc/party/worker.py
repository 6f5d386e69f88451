"""One party as a process of its own on this machine: `python -m threepc.party.worker ROLE DIRECTORY [MODEL]`, started and steered by `one_host`.

DIRECTORY, of mode 0700, holds the sockets; MODEL is the server's descriptor of the memory that holds its model. The starter's control channel
says what to do. The process ends with the starter: at once when standard input does, which the starter holds open.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import sys
import threading
from pathlib import Path

import numpy as np

from threepc.errors import InputError, ThreepcError
from threepc.files import write_atomically
from threepc.model.served import ServedModel
from threepc.party.client import ClientSession
from threepc.party.connector import ZmqConnector
from threepc.party.provider import ProviderParty
from threepc.party.server import ServerParty
from threepc.party.session import Options
from threepc.party.tracing import Timeline
from threepc.transport import zmq_dealer
from threepc.transport.channel import Channel
from threepc.transport.keys import KeyPair

LOG_VARIABLE = "THREEPC_LOG"
"""In the environment: the level from which the three processes log to standard error."""


def main(role: str, directory: str, model: int | None = None) -> int:
    """Run until the control channel ends or says so. Returns the exit status."""
    threading.Thread(target=_end_with_starter, args=(directory,), name="starter", daemon=True).start()
    # what ends a session reaches the starter as an error, once; every party's view of it is for debugging
    logging.basicConfig(level=os.environ.get(LOG_VARIABLE, "CRITICAL"), format=f"{role}: %(message)s", stream=sys.stderr)
    keys = KeyPair.new()
    control = Channel(zmq_dealer.connect(f"ipc://{directory}/control", name="the starter"), (role, "starter"), timeout=None)
    control.send_control("hello", {"role": role, "public": keys.public.decode()})
    try:
        with contextlib.ExitStack() as ending:
            _run(role, directory, keys, control, model, ending)
    except ThreepcError as error:
        control.send_control("failed", {"reason": str(error), "exit_status": error.exit_status})
        return error.exit_status
    finally:
        control.close()
    return 0


def _end_with_starter(directory: str) -> None:
    """Leave nothing behind when the starter is gone without a word; in the middle of a kernel too. The starter writes nothing here."""
    os.read(sys.stdin.fileno(), 1)
    shutil.rmtree(directory, ignore_errors=True)
    os._exit(1)


def _run(role: str, directory: str, own: KeyPair, control: Channel, model: int | None, ending: contextlib.ExitStack) -> None:
    told = control.receive_control("start").fields
    options, encrypted = Options.simulating(**told["options"]), told["transport"] == "tcp"
    if told["traced"]:
        timeline = Timeline(role)
        options = dataclasses.replace(options, trace=timeline)
        ending.callback(lambda: write_atomically(Path(directory, f"{role}.trace"), json.dumps(timeline.to_plain()).encode()))
    public = {name: key.encode() for name, key in told["public"].items()} if encrypted else {}
    keys = own if encrypted else None
    if role == "client":
        _ask(ZmqConnector(told["addresses"], keys, public, timeout=options.timeout), options, control)
        return
    authorised = tuple(public[name] for name in (("client",) if role == "server" else ("client", "server")) if name in public)
    mine = "tcp://127.0.0.1:0" if encrypted else f"ipc://{directory}/{role}"
    connector = ZmqConnector(told["addresses"] | {role: mine}, keys, public, authorised, options.timeout)
    party = ProviderParty(connector, options) if model is None else _server(model, connector, options)
    serving = threading.Thread(target=party.serve, name="serve")
    serving.start()
    try:
        control.send_control("listening", {"address": party.address})
        control.receive_control("stop")
    finally:
        party.stop()
        serving.join()


def _server(model: int, connector: ZmqConnector, options: Options) -> ServerParty:
    with os.fdopen(model, "rb") as file:
        return ServerParty(ServedModel.read(file), connector, options)


def _ask(connector: ZmqConnector, options: Options, control: Channel) -> None:
    with ClientSession(connector, options) as session:
        control.send_control("ready", {"seconds": session.setup_seconds, "links": session.setup_links})
        while (request := control.receive_control("infer", "prepare", "stop")).kind != "stop":
            if request.kind == "prepare":
                session.prepare_ahead(wait=True)
                control.send_control("prepared", {})
                continue
            (pixels,) = control.receive(0, [(np.uint32, tuple(request.fields["shape"]))])
            try:
                logits, record = session.infer(pixels.view(np.float32), request.fields["separate"])
            except InputError as error:  # nothing of these images was sent: the next ones may be better
                control.send_control("refused", {"reason": str(error)})
                continue
            control.send_control("result", {"shape": logits.shape, "record": record.to_plain()})
            control.send(0, [np.ascontiguousarray(logits).view(np.uint64)], "online")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))
