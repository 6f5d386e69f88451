"""Every kernel once on tiny arrays, so that no compilation or loading of machine code falls into a measured inference.

The first time on a machine this compiles (about half a minute for a ring), later it loads what was compiled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from threepc.graph.ir import Graph, Node
from threepc.kernels import convolution
from threepc.party import inference
from threepc.plan.precision import Precision
from threepc.plan.schedule import schedule
from threepc.prf import Keystream, new_key
from threepc.protocol.roles import Client, Provider, Server
from threepc.ring import Ring, word_of
from threepc.transport import memory
from threepc.transport.channel import Channel

_done: set[tuple[int, type]] = set()
_lock = threading.Lock()


def warm_up(precision: Precision, progress: Callable[[str], None] = lambda label: None) -> None:
    """Compile or load all kernels for a precision; once in a process for each pair of word types. progress: told what is next."""
    shifts = {precision.fraction, *precision.weight_fraction.values()}
    for shift in sorted(shifts):
        key = precision.bits, word_of(precision.bits - shift)
        with _lock:
            if key not in _done:
                if not any(bits == precision.bits for bits, _ in _done):
                    for label in convolution.warm_up(precision.bits):
                        progress(label)
                _tiny_inference(Precision(precision.bits, precision.fraction, {"conv": shift, "depthwise": shift}), progress)
                _done.add(key)


def _tiny_graph() -> tuple[Graph, dict]:
    conv = {"kernel": [3, 3], "stride": [1, 1], "padding": [1, 1, 1, 1], "dilation": [1, 1], "groups": 1}
    pool = {"kernel": [3, 3], "stride": [2, 2], "padding": [1, 1, 1, 1]}
    nodes = (
        Node("input", "input", (), (3, 6, 6)),
        Node("conv", "conv", ("input",), (3, 6, 6), conv),
        Node("pool", "maxpool", ("conv",), (3, 3, 3), pool | {"dilation": [1, 1]}),
        Node("relu", "relu", ("pool",), (3, 3, 3)),
        Node("depthwise", "conv", ("relu",), (3, 3, 3), conv | {"groups": 3}),
        Node("block", "relu", ("depthwise",), (3, 3, 3)),
        Node("sum", "add", ("block", "relu"), (3, 3, 3)),
        Node("clip", "clip", ("sum",), (3, 3, 3), {"max": 6.0}),
        Node("average", "avgpool", ("clip",), (3, 2, 2), pool | {"divisor": 9.0}),
        Node("concat", "concat", ("average", "average"), (6, 2, 2)),
        Node("output", "output", ("concat",), (6, 2, 2)),
    )
    return Graph(nodes), {"block": ((2, 2), (0, 1), (1, 0))}


def _tiny_inference(precision: Precision, progress: Callable[[str], None]) -> None:
    graph, sizes = _tiny_graph()
    plan, ring = schedule(graph, precision, sizes), Ring(precision.bits)
    progress("keyed streams")
    keys = [new_key() for _ in range(3)]
    streams = {name: Keystream(keys[i]) for name, i in (("CP", 0), ("PC", 0), ("SP", 1), ("PS", 1), ("weights", 2))}
    for stream in streams.values():
        stream.begin_attempt(0)
    weights, biases = {}, {}
    for step in plan.linear:
        progress(f"{ring.bits}-bit ring: masked weights")
        words = np.zeros(step.protocol.weight_shape, ring.word)
        weights[step.op] = step.protocol.client_weights(step.protocol.mask_weights(streams["weights"], words))
        biases[step.op] = np.zeros(step.protocol.weight_shape[0], ring.word)

    ends = {}
    for a, b, purpose in (("provider", "server", "dealt"), ("client", "server", "prepared"), ("client", "server", "online")):
        one, two = memory.pair()
        ends[purpose] = Channel(one, (a, b)), Channel(two, (b, a))
    note = lambda index, step, seconds: progress(f"{ring.bits}-bit ring: {step.kind}")
    inference.deal(Provider(0, weights, streams["PC"], streams["PS"], ends["dealt"][0]), plan, note)
    client = Client(0, weights, streams["CP"], ends["prepared"][0], ends["online"][0])
    prepared = _Finished()
    prepared.kept = inference.prepare(client, plan, lambda mask: setattr(prepared, "mask", mask))
    server = Server(0, weights, biases, streams["SP"], ends["dealt"][1], ends["prepared"][1], ends["online"][1])
    errors = []

    def serve():
        try:
            inference.serve(server, plan)
        except BaseException as error:
            errors.append(error)
            for channel in ends["online"]:
                channel.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        inference.infer(client, plan, np.zeros((1, *graph.input.shape), ring.word), prepared, note)
    finally:
        thread.join()
        for pair in ends.values():
            for channel in pair:
                channel.close()
        if errors:
            raise errors[0]


class _Finished:
    mask: np.ndarray
    kept: np.ndarray
