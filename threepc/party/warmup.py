"""Every kernel once on tiny arrays, so that no compilation or loading of machine code falls into a measured inference.

The first time on a machine this compiles (about half a minute for a ring), later it loads what was compiled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from threepc.choices import LABEL, LOGITS
from threepc.graph.ir import Graph, Node
from threepc.graph.relu_spec import Sizes
from threepc.kernels import convolution
from threepc.party.in_process import ThreeRoles, share_weights
from threepc.plan.precision import Precision
from threepc.plan.schedule import schedule
from threepc.prf import new_key
from threepc.ring import Ring, word_of

_done: set[tuple[int, type, int, bool, bool]] = set()
_lock = threading.Lock()


def warm_up(precision: Precision, progress: Callable[[str], None] = lambda _: None, *, varied: bool = False, labels: bool = False) -> None:
    """Compile or load all kernels for a precision; once in a process for each pair of word types and depth of truncations.

    progress: told what is next. varied: those of ReLUs in two and in six messages too; labels: those of outputs of which the label alone is revealed.
    """
    shifts = {precision.fraction, *precision.weight_fraction.values()}
    for shift in sorted(shifts):
        key = precision.bits, word_of(precision.bits - shift), precision.truncation, varied, labels
        with _lock:
            if key not in _done:
                if not any(bits == precision.bits for bits, *_ in _done):
                    for label in convolution.warm_up(precision.bits):
                        progress(label)
                own = {"conv": shift, "depthwise": shift}
                tiny = Precision(precision.bits, precision.fraction, own, truncation=precision.truncation)
                _tiny_inference(tiny, progress, varied, labels)
                _done.add(key)


def _tiny_graph() -> tuple[Graph, Sizes]:
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
        Node("difference", "add", ("sum", "relu"), (3, 3, 3), {"signs": [1, -1]}),
        Node("clip", "clip", ("difference",), (3, 3, 3), {"max": 6.0}),
        Node("product", "multiply", ("clip", "difference"), (3, 3, 3)),
        Node("attention", "matmul", ("product", "clip"), (3, 3, 3)),
        Node("curve", "smooth", ("attention",), (3, 3, 3), {"function": "sigmoid", "parameter": 1.0}),
        Node("bend", "bend", ("curve",), (3, 3, 3), {"slopes": [0.5, 1.0]}),
        Node("average", "avgpool", ("bend",), (3, 2, 2), pool | {"divisor": 9.0}),
        Node("concat", "concat", ("average", "average"), (6, 2, 2)),
        Node("output", "output", ("concat",), (6, 2, 2)),
    )
    return Graph(nodes), {"block": ((2, 2), (0, 1), (1, 0))}


def _tiny_inference(precision: Precision, progress: Callable[[str], None], varied: bool, labels: bool) -> None:
    graph, sizes = _tiny_graph()
    two, six = (("pool", "relu", "block", "bend"), ("clip",)) if varied else ((), ())
    plan, ring = schedule(graph, precision, sizes, reveal=LABEL if labels else LOGITS, quick=two, late=six), Ring(precision.bits)
    progress("keyed streams")
    key = new_key()
    progress(f"{ring.bits}-bit ring: masked weights")
    shapes = {step.name: step.protocol.weight_shape for step in plan.linear}
    weights = {name: {"weight": np.zeros(shape), "bias": np.zeros(shape[0])} for name, shape in shapes.items()}
    with ThreeRoles(share_weights(plan, weights, key)) as roles:
        words = np.zeros((1, *graph.input.shape), ring.word)
        roles.infer(plan, words, lambda _, step, __: progress(f"{ring.bits}-bit ring: {step.kind}"))
