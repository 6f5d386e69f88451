"""How large a job's numbers may get: what is traced is right at the very edge of its limits, and what would not fit is refused, in one line."""

import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from threepc import tensors
from threepc.errors import InputError
from threepc.graph.ir import Graph, Node
from threepc.tensors import ranges, recording
from threepc.tensors.parties import willing

SHAPE = (4, 6)
KNOWN = np.rint(np.linspace(-1.7, 2.3, 24).reshape(SHAPE) * 2048) / 2048

OPERATIONS = {
    "sums": (lambda x, y: x + y - 3, lambda x, y: x + y - 3),
    "a sum": (lambda x, y: x.sum(), lambda x, y: x.sum()),
    "products": (lambda x, y: x * y, lambda x, y: x * y),
    "squares": (lambda x, y: x**2 - y, lambda x, y: x**2 - y),
    "a matrix product": (lambda x, y: x @ y.T, lambda x, y: x @ y.T),
    "known factors": (lambda x, y: x * KNOWN, lambda x, y: x * KNOWN),
    "a known matrix": (lambda x, y: x.T @ KNOWN, lambda x, y: x.T @ KNOWN),
    "known, then hidden": (lambda x, y: (KNOWN.T @ x) @ y.T, lambda x, y: (KNOWN.T @ x) @ y.T),
    "a mean": (lambda x, y: x.mean(), lambda x, y: x.mean()),
    "a mean that goes on": (lambda x, y: (x - y).mean(1).relu(), lambda x, y: np.maximum((x - y).mean(1), 0)),
    "relu": (lambda x, y: (x - y).relu(), lambda x, y: np.maximum(x - y, 0)),
    "abs": (lambda x, y: abs(x * 0.5), lambda x, y: np.abs(x * 0.5)),
    "clip": (lambda x, y: x.clip(-1.5, 3), lambda x, y: np.clip(x, -1.5, 3)),
    "a comparison": (lambda x, y: x > y, lambda x, y: x > y),
    "where": (lambda x, y: tensors.where(x > y, x, y), lambda x, y: np.where(x > y, x, y)),
    "maximum": (tensors.maximum, np.maximum),
    "max": (lambda x, y: (x - y).max(0), lambda x, y: (x - y).max(0)),
    "argmax": (lambda x, y: x.argmax(), lambda x, y: x.size - 1 - np.argmax(x.reshape(-1)[::-1])),
    "a product that is decided too": (lambda x, y: (lambda z: z.relu() + z * y)(x * 0.5), lambda x, y: np.maximum(x * 0.5, 0) + x * 0.5 * y),
    "gelu": (lambda x, y: x.apply("gelu"), lambda x, y: np.vectorize(lambda z: z * (1 + math.erf(z / math.sqrt(2))) / 2)(x)),
    "tanh": (lambda x, y: x.apply("tanh"), lambda x, y: np.tanh(x)),
    "mish": (lambda x, y: x.apply("mish"), lambda x, y: x * np.tanh(np.logaddexp(0, x))),
}  # fmt: skip


def traced(operation, limit, ring=32):
    def job(p):
        p.reveal(operation(p.input("x", SHAPE, "client", limit), p.input("y", SHAPE, "bank", limit)), "client", "z")

    return tensors.trace(job, ring)


def largest_limit(operation, ring):
    """The largest that is not refused, to a part in a million."""
    low, high = -8.0, 64.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        try:
            traced(operation, 2.0**middle, ring)
            low = middle
        except InputError:
            high = middle
    return 2.0**low


def at_the_edge(limit):
    """Arrays whose numbers are the limit or the opposite, with two rows alike."""
    signs = np.random.default_rng(0).choice((-1.0, 1.0), (2, *SHAPE))
    signs[:, 0], signs[:, 1, :] = 1.0, [[1.0], [-1.0]]
    return signs * limit


@pytest.mark.parametrize("name, ring", [*((name, 32) for name in OPERATIONS), ("products", 64), ("argmax", 64), ("argmax", 48)])
def test_the_largest_limit_that_is_traced_is_right(name, ring):
    """What wraps, or what a gate cannot hold, would be off by more than all roundings by far."""
    operation, numpys = OPERATIONS[name]
    limit = largest_limit(operation, ring)
    program, unit = traced(operation, limit, ring), 2.0 ** -{64: 16, 48: 16, 32: 11}[ring]
    x, y = at_the_edge(math.floor(limit / unit) * unit)
    with tensors.local(program, {"z": "client"}) as parties:
        found = parties.run({"x": x}, owners={"y": y}).client["z"]
    wanted = numpys(x, y)
    assert np.abs(found - wanted).max() <= unit * (8 + 4 * np.abs(wanted).max())
    assert np.abs(program.in_the_clear({"x": x, "y": y})["z"] - wanted).max() <= unit * np.abs(wanted).max()


def test_the_limits_are_not_smaller_than_they_have_to_be():
    """A product before its truncation has as many bits of its own as the ring less its sign, a spare one and the fractions."""
    for ring, bits in ((64, 30), (48, 14), (32, 8)):
        assert 0.99 < largest_limit(lambda x, y: x * y, ring) / 2 ** (bits / 2) < 1
        assert 0.99 < largest_limit(lambda x, y: x @ y.T, ring) / math.sqrt(2**bits / 6) < 1
        assert 0.99 < largest_limit(lambda x, y: tensors.maximum(tensors.maximum(x, y), 1.0).relu(), ring) / 2 ** (bits - 1) < 1


WHOLE = {
    "+": lambda of, a, b: a + b,
    "-": lambda of, a, b: a - b,
    "*": lambda of, a, b: a * b,
    "@": lambda of, a, b: a @ b,
    "T": lambda of, a, b: a.T,
    "slice": lambda of, a, b: a[::-1, 1:2] + b,
    "sum": lambda of, a, b: a.sum(0) + b,
    "max": lambda of, a, b: a.max(1) - b,
    "relu": lambda of, a, b: of.maximum(a, 0),
    "abs": lambda of, a, b: abs(a) - 3,
    "clip": lambda of, a, b: a.clip(-2, 5),
    "larger": lambda of, a, b: of.maximum(a, b),
    "smaller": lambda of, a, b: of.minimum(a, b),
    "where": lambda of, a, b: of.where(a > b + 0.5, a, b),
    "times": lambda of, a, b: a * np.array([[3.0, -1.0, 2.0]]),
    "known": lambda of, a, b: a @ np.array([[1.0, -2.0, 0.0], [0.0, 1.0, 1.0], [4.0, 0.0, -1.0]]),
}
"""Of 3x3 arrays of whole numbers, in the job and in numpy: whole numbers again, but for the roundings of products."""


def chain(of, names, x, y):
    """Each operation takes the last result and the one before."""
    last, before = x, y
    for name in names:
        last, before = WHOLE[name](of, last, before), last
    return last


@settings(max_examples=25)
@given(names=st.lists(st.sampled_from(sorted(WHOLE)), min_size=1, max_size=8), power=st.integers(0, 9), seed=st.integers(0, 2**32 - 1))
def test_random_jobs_at_the_edge_of_their_limits(names, power, seed):
    """What is traced is right; what would not fit in the ring for some arrays within the limits is refused."""
    assume(sum(name in "*@" for name in names) < 3)
    limit = 2.0**power
    x, y = np.random.default_rng(seed).choice((-limit, limit, 0.0, 1.0 - limit), (2, 3, 3))

    def job(p):
        p.reveal(chain(tensors, names, p.input("x", (3, 3), "client", limit), p.input("y", (3, 3), "bank", limit)), "client", "z")

    wanted = chain(np, names, x, y)
    try:
        program = tensors.trace(job, ring=40)
    except InputError as error:
        assert "in size, and a ring of 40 bits" in str(error)
        return
    with tensors.local(program, {"z": "client"}) as parties:
        found = parties.run({"x": x}, owners={"y": y}).client["z"]
    assert np.abs(found - wanted).max() < 1, (names, limit)
    assert np.array_equal(program.in_the_clear({"x": x, "y": y})["z"], wanted)


@settings(max_examples=60)
@given(names=st.lists(st.sampled_from(sorted(WHOLE)), min_size=1, max_size=12), power=st.integers(-3, 9), seed=st.integers(0, 2**32 - 1))
def test_no_number_of_a_job_lies_outside_of_its_interval(names, power, seed):
    """In Python's own numbers, of arrays anywhere within the limits; jobs that the ring cannot hold are looked at too."""
    limit, found = 2.0**power, []

    def job(p):
        found.append(chain(tensors, names, p.input("x", (3, 3), "client", limit), p.input("y", (3, 3), "bank", limit)))
        p.reveal(found[0].assume(1e300), "client", "z")

    own = tensors.Job(recording.Trace(2.0**-16), 1.0)
    job(own)
    graph = Graph((Node("client", "input", (), (18, 1, 1)), *own._trace.nodes, *(node for _, node in own.outputs)))
    low, high = ranges.intervals(graph, 16)[found[0].node]
    rng = np.random.default_rng(seed)
    values = chain(np, names, *(rng.choice((-limit, limit, 0.0, rng.uniform(-limit, limit)), (2, 3, 3))))
    assert low <= values.min() and values.max() <= high


def revealing(operation, **limits):
    """A job of the client's x and the bank's y."""
    return lambda p: p.reveal(
        operation(*(p.input(name, SHAPE, who, **limits) for name, who in (("x", "client"), ("y", "bank")))), "client", "z"
    )


TOO_LARGE = r"multiply_\d+ \(test_ranges.py:\d+\) may reach 2.684e\+08 in size, and a ring of 48 bits with 16 fractional bits holds less than 1.638e\+04 here"
REFUSED = {
    "a product": (revealing(lambda x, y: x * y, limit=2.0**14), TOO_LARGE),
    "a square": (revealing(lambda x, y: x**2, limit=2.0**14), TOO_LARGE),
    "a known factor": (revealing(lambda x, y: (x * 2.0**28).relu(), limit=1), TOO_LARGE),
    "an argument": (revealing(lambda x, y: (x * 2.0**28).apply("tanh"), limit=1), "reach|any number|2.684e"),
    "what is shown": (revealing(lambda x, y: x * 2.0**29, limit=4.0), r"may reach 2.148e\+09 in size, and .* holds less than 1.074e\+09 here"),
    "what the server is shown": (
        lambda p: p.reveal(p.input("x", SHAPE, "client", 4.0) * 2.0**29, "server", "z"), r"may reach 2.148e\+09 in size, and .* holds less than 1.074e\+09"
    ),
    "beyond floats": (revealing(lambda x, y: sum_of_large(x), limit=2.0**25), "may be any number in size, and a ring"),
    "squares beyond floats": (revealing(lambda x, y: x * x, limit=1e200), r"multiply_.* may be any number in size"),
    "sums beyond floats": (revealing(lambda x, y: x + y, limit=1.7e308), "add_.* may be any number in size"),
    "a known number beyond floats": (revealing(lambda x, y: x + 1.7e308), "constant_.*: not a finite number"),
    "an input": (revealing(lambda x, y: x + y, limit=2.0**30), r"may reach 2.147e\+09 in size"),
    "a contradiction": (revealing(lambda x, y: (x.clip(5, 7)).assume(1)), r"clip_\d+: the job assumes at most 1 of what is from 5 to 7"),
    "an assumption that is too large itself": (revealing(lambda x, y: (x @ y.T).assume(2.0**14), limit=2.0**14), r"may reach 1.638e\+04 in size"),
}  # fmt: skip


def sum_of_large(x):
    for _ in range(40):
        x = x * 2.0**28 * 1.0
    return x


@pytest.mark.parametrize("name", REFUSED)
def test_what_may_be_too_large_is_refused_in_one_line(name):
    job, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as refused:
        tensors.trace(job, ring=48)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("limit", (0, -1.0, math.nan, math.inf, 10**5000, True, "1", None, 1j, np.ones(2)), ids=range(10))
def test_what_is_no_limit(limit):
    with pytest.raises(InputError, match="assume: a limit is a finite number above 0, not "):
        tensors.trace(revealing(lambda x, y: x.assume(limit)))
    if limit is not None:
        with pytest.raises(InputError, match="input 'x': a limit is a finite number above 0, not "):
            tensors.trace(revealing(lambda x, y: x + y, limit=limit))


@pytest.mark.parametrize("limit", (5e-324, 1e-9, np.float32(0.5), np.int64(3), 2**45))
def test_any_finite_limit_that_the_ring_holds(limit):
    assert tensors.trace(revealing(lambda x, y: x, limit=limit)).inputs[0].limit == float(limit)


ASSUMED = "assumed, and not checked by the parties: no number of matmul_7 (test_ranges.py) above 100 in size"
LONG = revealing(lambda x, y: (x @ y.T).assume(100) @ x, limit=2.0**5)


def test_an_assumption_takes_the_place_of_the_worst_case():
    """It says of the product itself what no interval can, before the truncation too, and through what only moves."""
    with pytest.raises(InputError, match=r"matmul_8 \(test_ranges.py:\d+\) may reach 7"):
        tensors.trace(revealing(lambda x, y: (x @ y.T) @ x, limit=2.0**5), ring=48)
    program = tensors.trace(LONG, ring=48)
    assert tensors.trace(revealing(lambda x, y: (x @ y.T).T.reshape(16).assume(100).reshape(4, 4) @ x, limit=2.0**5), ring=48)
    (assumption,) = program.assumptions
    assert re.sub(r":\d+\)", ")", assumption) == ASSUMED
    assert str(program).splitlines() == [
        "<lambda>:",
        "  client brings x (4, 6), no number above 32 in size",
        "  bank brings y (4, 6), no number above 32 in size",
        f"  {assumption}",
        "  client is shown z (4, 6)",
    ]
    assert (
        tensors.trace(LONG, ring=48).fingerprint
        != tensors.trace(revealing(lambda x, y: (x @ y.T).assume(99) @ x, limit=2.0**5), ring=48).fingerprint
    )


def test_an_assumption_is_said_aloud_and_examined_in_the_clear(caplog):
    program = tensors.trace(LONG, ring=48)
    x, y = np.random.default_rng(0).uniform(-4, 4, (2, *SHAPE))
    with tensors.local(program, {"z": "client"}) as parties:
        assert np.abs(parties.run({"x": x}, owners={"y": y}).client["z"] - x @ y.T @ x).max() < 0.01
    assert program.assumptions[0] in caplog.text
    assert np.abs(program.in_the_clear({"x": x, "y": y})["z"] - x @ y.T @ x).max() < 0.01
    with pytest.raises(InputError, match=r"matmul_7 \(test_ranges.py:\d+\) reaches 1536 in size, and the job assumes at most 100"):
        program.in_the_clear({"x": np.full(SHAPE, 16), "y": np.full(SHAPE, 16)})
    with pytest.raises(InputError, match="y: a number is outside of the limit 32 that the job states for it"):
        program.in_the_clear({"x": x, "y": y * 20})
    with pytest.raises(InputError, match="'y' is missing: the job takes x, y"):
        program.in_the_clear({"x": x})


def test_a_policy_may_forbid_assumptions():
    program, careful = tensors.trace(LONG, ring=48), tensors.Policy({"z": "client"}, assumptions=False)
    forbidden = pytest.raises(InputError, match=r"policy: no bound may be assumed that nobody checks, and the job assumes one of matmul_7$")
    with forbidden, tensors.local(program, careful):
        pass
    with forbidden:  # each party of its own, whoever describes the job
        willing(program, careful)(program.public)
    willing(program, tensors.Policy({"z": "client"}))(program.public)
    tensors.trace(revealing(lambda x, y: x * y)).check(careful)


def test_the_default_limit_lets_three_inputs_be_multiplied():
    for ring, limit in ((64, 512), (48, 16), (40, 8), (32, 4)):
        program = tensors.trace(revealing(lambda x, y: x * y * x), ring)
        assert {each.limit for each in program.inputs} == {limit}


def described(program, change):
    """What another party may describe: the nodes of a program, changed."""
    nodes = [change(node) for node in program.public.graph.nodes]
    return dataclasses.replace(program.public, graph=Graph(tuple(nodes)))


@pytest.mark.parametrize(
    "kind, attributes, message",
    [
        ("limit", {"size": 2.0**20, "by": "bank"}, "may reach"),
        ("limit", {"size": 1e300}, "may reach 1e.300|may be any number"),
        ("constant", {"values": [2.0**29]}, "may reach"),
    ],
)
def test_a_description_of_another_party_is_looked_at_too(kind, attributes, message):
    program = tensors.trace(revealing(lambda x, y: x * y * 2.0))

    def change(node):
        return dataclasses.replace(node, attrs=attributes) if node.kind == kind else node

    with pytest.raises(InputError, match=message):
        willing(program, {"z": "client"})(described(program, change))


def test_nobody_sees_to_the_limit_of_what_nobody_brings():
    program = tensors.trace(revealing(lambda x, y: (x * y).assume(3)))

    def change(node):
        return dataclasses.replace(node, attrs={"size": 3.0, "by": "bank"}) if node.kind == "limit" else node

    with pytest.raises(InputError, match="limit_7: bank does not bring multiply_6, and cannot see to its limit"):
        willing(program, {"z": "client"})(described(program, change))


@pytest.mark.parametrize(
    "kind, attributes, sources", [("gather", {"moves": [["reshape", [1, 1, 2]]]}, ("x",)), ("add", {"signs": [1, -1]}, ("client", "w"))]
)
def test_an_owner_brings_its_parts_and_their_sum_alone(kind, attributes, sources):
    """Not what is made of another's number, nor a difference, whatever a description says of it."""
    nodes = [
        Node("client", "input", (), (1, 1, 2)),
        Node("w", "input", (), (1, 1, 2), {"owner": "server"}),
        Node("x", "limit", ("client",), (1, 1, 2), {"size": 8.0, "by": "client"}),
        Node("made", kind, sources, (1, 1, 2), attributes),
        Node("y", "limit", ("made",), (1, 1, 2), {"size": 1.0, "by": "bank"}),
        Node("z", "output", ("y",), (1, 1, 2), {"path": [["dict", "z"]]}),
    ]
    with pytest.raises(InputError, match="y: bank does not bring made, and cannot see to its limit"):
        ranges.intervals(Graph(tuple(nodes)), 16)


def test_roundings_have_room_below_every_bound(monkeypatch):
    program, intervals, unit = tensors.trace(revealing(lambda x, y: x.relu()), ring=32), ranges.intervals, 2.0**-11
    *_, shown = (bound for bound in ranges._held(program.public.plan(1)) if not bound.decided)
    found = dict[str, ranges.Interval]()
    monkeypatch.setattr(ranges, "intervals", lambda *given: intervals(*given) | found)
    found[shown.node] = ranges.Interval(0.0, 2.0**shown.exponent - (2 * ranges.ROUNDING + 1) * unit)
    ranges.check(program.public)
    found[shown.node] = ranges.Interval(0.0, 2.0**shown.exponent - 2 * ranges.ROUNDING * unit)
    with pytest.raises(InputError, match="may reach"):
        ranges.check(program.public)


def test_zeros_that_moves_bring_and_squares_of_numbers_of_both_signs_lie_within():
    nodes = [
        Node("client", "input", (), (1, 1, 2)),
        Node("x", "limit", ("client",), (1, 1, 2), {"size": 4.0, "by": "client"}),
        Node("known", "constant", (), (1, 1, 2), {"values": [5.0, 7.0]}),
        Node("moved", "gather", ("known",), (1, 1, 2), {"moves": [["take", 2, 1, 1, 2]]}),  # 7 and what is behind it
        Node("square", "multiply", ("x", "x"), (1, 1, 2)),
        Node("sum", "add", ("moved", "square"), (1, 1, 2)),
        Node("z", "output", ("sum",), (1, 1, 2), {"path": [["dict", "z"]]}),
    ]
    found = ranges.intervals(Graph(tuple(nodes)), 16)
    assert max(found["moved"].low, found["square"].low, found["sum"].low) <= 0 and found["sum"].high >= 23


def test_a_choice_is_known_for_one_by_its_values():
    """Numbers that a description moves so that they become zeros are not those that were subtracted: bit * (x - y) + 0 is no choice."""
    program = tensors.trace(revealing(lambda x, y: tensors.where(x > 0, x, y[0, 0]), limit=8), ring=48)
    assert ranges.intervals(program.public.graph, 16)["output z"].size < 8.1
    *before, last, output = program.public.graph.nodes
    again = program.public.graph[last.inputs[1]]
    zeros = dataclasses.replace(again, name="zeros", attrs={"moves": [["take", 1, 1, 1, 4], ["take", 2, 1, 1, 6]]})
    graph = Graph((*before, zeros, dataclasses.replace(last, inputs=(last.inputs[0], "zeros")), output))
    assert again.kind == "gather" and ranges.intervals(graph, 16)["output z"].size > 16


def test_a_share_without_a_limit_may_be_any_number():
    """A data owner's parts are any words: without what its owner sees to, nothing may be decided or shown of them."""
    nodes = [
        Node("client", "input", (), (1, 1, 2)),
        Node("w", "input", (), (1, 1, 2), {"owner": "server"}),
        Node("sum", "add", ("client", "w"), (1, 1, 2)),
        Node("z", "output", ("sum",), (1, 1, 2), {"path": [["dict", "z"]]}),
    ]
    program = tensors.trace(revealing(lambda x, y: x))
    with pytest.raises(InputError, match="sum may be any number in size"):
        ranges.check(dataclasses.replace(program.public, graph=Graph(tuple(nodes))))


@pytest.mark.parametrize("kind, attributes", [("rectify", {}), ("reshape", {}), ("resize", {"size": [1, 1]})])
def test_what_is_no_operation_of_a_job(kind, attributes):
    shape = (2, 1, 1) if kind != "resize" else (1, 1, 1)
    nodes = [
        Node("client", "input", (), (1, 1, 1)),
        Node("x", "limit", ("client",), (1, 1, 1), {"size": 1.0, "by": "client"}),
        Node("y", kind, ("x",), shape if kind == "rectify" else (1, 1, 1), attributes),
        Node("z", "output", ("y",), shape if kind == "rectify" else (1, 1, 1), {"path": [["dict", "z"]]}),
    ]
    program = tensors.trace(revealing(lambda x, y: x))
    with pytest.raises(InputError, match=f"y: {kind} is no operation of a job"):
        ranges.check(dataclasses.replace(program.public, graph=Graph(tuple(nodes))))
