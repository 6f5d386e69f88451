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
from threepc.kernels.gate import NARROW_LIFT
from threepc.model.served import PublicModel
from threepc.party.in_process import ThreeRoles, share_weights
from threepc.party.session import log
from threepc.plan.precision import FRACTION, MAX_TRUNCATION, Precision
from threepc.plan.schedule import schedule
from threepc.prf import new_key
from threepc.ring import Ring, word_of

QUIET_S = 2.0
"""What takes longer than so many seconds is said."""

LITTLE_REMOVED = 7
"""A truncation by so many bits leaves more than 32 in the rings that have more than 32 and lose them to their usual one."""

_done: set[tuple[int, bool, bool, bool, bool]] = set()
_lock = threading.Lock()


def warm_up(precision: Precision, progress: Callable[[str], None] = lambda _: None, *, varied: bool = False, labels: bool = False) -> None:
    """Compile or load all kernels for a precision, each once in a process.

    progress: told what is next. varied: those of ReLUs in two and in six messages too; labels: those of outputs of which the label alone is revealed.
    """
    bits, own = precision.bits, {precision.fraction, *precision.weight_fraction.values()}
    shifts = {
        min(shift, precision.truncation) for shift in own | {max(1, least - precision.fraction + precision.of_input) for least in own}
    }
    deep = precision.truncation > NARROW_LIFT or precision.early
    met = {_kind(bits, shift) for shift in shifts} | ({_kind(bits, NARROW_LIFT + 1)} if deep else set())
    for removed in _truncations(bits):
        if _kind(bits, removed) in met:
            _warm_up_once(bits, removed, progress, varied, labels)


def warm_up_for(model: PublicModel, progress: Callable[[str], None] = lambda _: None) -> None:
    """As `warm_up`, all that a model needs."""
    warm_up(model.precision, progress, varied=model.is_varied, labels=model.reveals_labels)


def warm_up_in_session(model: PublicModel) -> None:
    """As `warm_up_for`, while the other parties wait: a line in the log where it takes longer than two seconds."""
    late = threading.Timer(
        QUIET_S, log.info, [f"compiling kernels of the {model.precision.bits}-bit ring; 'threepc compile' does so ahead"]
    )
    late.daemon = True
    late.start()
    try:
        warm_up_for(model)
    finally:
        late.cancel()


def warm_up_ring(bits: int, progress: Callable[[str], None] = lambda _: None) -> None:
    """Compile or load every kernel that any network and any job may need in a ring of `bits` bits. progress: told what is next."""
    for removed in _truncations(bits):
        for varied in (False, True):
            _warm_up_once(bits, removed, progress, varied, labels=not varied)


def _kind(bits: int, removed: int) -> tuple[bool, bool]:
    """What decides which kernels a truncation by so many bits takes: the words of what is left, and those that mask its lift."""
    return word_of(bits - removed) is np.uint64, removed > NARROW_LIFT


def _truncations(bits: int) -> list[int]:
    """How many bits a truncation removes in a ring: a number of each kind that there is."""
    usual = FRACTION[bits]
    possible = [removed for removed in (usual, LITTLE_REMOVED, NARROW_LIFT + 1) if min(removed, usual) + removed <= bits - 2]
    return list({_kind(bits, removed): removed for removed in reversed(possible)}.values())[::-1]


def _warm_up_once(bits: int, removed: int, progress: Callable[[str], None], varied: bool, labels: bool) -> None:
    key = (bits, *_kind(bits, removed), varied)
    with _lock:
        if (*key, labels) not in _done and (*key, True) not in _done:
            if not any(done == bits for done, *_ in _done):
                for label in convolution.warm_up(bits):
                    progress(label)
            own, most = {"conv": removed, "depthwise": removed}, max(removed, MAX_TRUNCATION)
            _tiny_inference(Precision(bits, min(removed, FRACTION[bits]), own, truncation=most), progress, varied, labels)
            _done.add((*key, labels))


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
        Node("again", "conv", ("block",), (3, 3, 3), conv | {"groups": 3, "weights": "depthwise"}),
        Node("plain", "relu", ("again",), (3, 3, 3)),
        Node("sum", "add", ("plain", "relu"), (3, 3, 3)),
        Node("difference", "add", ("sum", "relu"), (3, 3, 3), {"signs": [1, -1]}),
        Node("slope", "bend", ("difference",), (3, 3, 3), {"slopes": [0.5, 1.0]}),
        Node("clip", "clip", ("slope",), (3, 3, 3), {"max": 6.0}),
        Node("product", "multiply", ("clip", "difference"), (3, 3, 3)),
        Node("attention", "matmul", ("product", "clip"), (3, 3, 3)),
        Node("curve", "smooth", ("attention",), (3, 3, 3), {"function": "sigmoid", "parameter": 1.0}),
        Node("bend", "bend", ("curve",), (3, 3, 3), {"slopes": [0.5, 1.0]}),
        Node("average", "avgpool", ("bend",), (3, 2, 2), pool | {"divisor": 9.0}),
        Node("concat", "concat", ("average", "average"), (6, 2, 2)),
        *(
            Node(f"output/{name}", "output", (source,), shape, {"path": [["dict", name]]})
            for name, source, shape in (("values", "concat", (6, 2, 2)), ("product", "conv", (3, 6, 6)), ("activation", "relu", (3, 3, 3)))
        ),
    )
    return Graph(nodes), {"block": ((2, 2), (0, 1), (1, 0))}


class _Patient(ThreeRoles):
    """The roles wait for each other as long as the others' kernels take to compile, which is minutes on a busy machine."""

    timeout = None


def _tiny_inference(precision: Precision, progress: Callable[[str], None], varied: bool, labels: bool) -> None:
    graph, sizes = _tiny_graph()
    two, six = (("pool", "relu", "block", "slope", "bend"), ("clip",)) if varied else ((), ())
    plan, ring = (
        schedule(graph, precision, sizes, reveal=f"{LOGITS},{LABEL},{LABEL}" if labels else LOGITS, quick=two, late=six),
        Ring(precision.bits),
    )
    progress("keyed streams")
    key = new_key()
    progress(f"{ring.bits}-bit ring: masked weights")
    shapes = {step.name: step.protocol.weight_shape for step in plan.linear}
    weights = {name: {"weight": np.zeros(shape), "bias": np.zeros(shape[0])} for name, shape in shapes.items()}
    with _Patient(share_weights(plan, weights, key)) as roles:
        words = np.zeros((1, *graph.input.shape), ring.word)
        roles.infer(plan, words, lambda _, step, __: progress(f"{ring.bits}-bit ring: {step.kind}"))
