"""Every operation on hidden arrays against numpy's, on arrays of all shapes, by three parties; and what it refuses, in one line."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from threepc import tensors
from threepc.errors import InputError

RINGS = {64: 2.0**-16, 48: 2.0**-16, 40: 2.0**-14, 32: 2.0**-11}
"""A unit, by ring."""


def all_computed(jobs, x, y, ring=64):
    """What jobs of the same two arrays, the client's x and the server's y, reveal to the client, run as one, which takes a tenth of the time."""
    names = {name: f"z{number}" for number, name in enumerate(jobs)}

    def whole(p):
        ours = p.input("x", np.shape(x), "client"), p.input("y", np.shape(y), "server")
        for name, job in jobs.items():
            p.reveal(job(*ours), "client", names[name])

    with tensors.local(tensors.trace(whole, ring), dict.fromkeys(names.values(), "client")) as parties:
        found = parties.run({"x": x}, {"y": y}).client
    return {name: found[revealed] for name, revealed in names.items()}


def computed(job, x, y, ring=64):
    """What a job of two arrays reveals."""
    return all_computed({"": job}, x, y, ring)[""]


def assert_same(found, wanted, units, ring=64, name=""):
    """Equal shapes, and numbers within so many units."""
    assert found.shape == np.shape(wanted), name
    assert np.abs(found - wanted).max(initial=0.0) <= units * RINGS[ring], (name, np.abs(found - wanted).max() / RINGS[ring])


def numbers(shape, limit=3.0):
    """Numbers that a ring of 32 bits holds, all of whole units, so that every ring encodes them exactly."""
    units = st.integers(-int(limit * 2048), int(limit * 2048))
    return arrays_of.arrays(np.int64, shape, elements=units).map(lambda whole: whole / 2048)


def pairs(limit=3.0, most_axes=3):
    """Two arrays of shapes that broadcast."""
    shapes = arrays_of.mutually_broadcastable_shapes(num_shapes=2, max_dims=most_axes, max_side=4)
    return shapes.flatmap(lambda found: st.tuples(*(numbers(shape, limit) for shape in found.input_shapes)))


SHAPES = arrays_of.array_shapes(min_dims=0, max_dims=3, max_side=5)
few = settings(max_examples=12)

ELEMENTWISE = {
    "+": (lambda x, y: x + y, 1),
    "-": (lambda x, y: x - y, 1),
    "*": (lambda x, y: x * y, 2),
    ">": (lambda x, y: x > y, 0),
    "<": (lambda x, y: x < y, 0),
    ">=": (lambda x, y: x >= y, 0),
    "<=": (lambda x, y: x <= y, 0),
    "==": (lambda x, y: x == y, 0),
    "!=": (lambda x, y: x != y, 0),
}


@pytest.mark.parametrize("ring", RINGS)
@few
@given(pair=pairs(), alike=st.booleans())
def test_elementwise(ring, pair, alike):
    x, y = pair
    if alike:  # equal numbers too
        x, y = np.rint(x), np.rint(y)
    found = all_computed({name: operation for name, (operation, _) in ELEMENTWISE.items()}, x, y, ring)
    for name, (operation, units) in ELEMENTWISE.items():
        assert_same(found[name], operation(x, y), units, ring, name)


CHOSEN = {
    "where": (lambda x, y: tensors.where(x > y, x, y * 2), lambda x, y: np.where(x > y, x, y * 2)),
    "maximum": (tensors.maximum, np.maximum),
    "minimum": (tensors.minimum, np.minimum),
}


@few
@given(pair=pairs())
def test_chosen(pair):
    found = all_computed({name: ours for name, (ours, _) in CHOSEN.items()}, *pair)
    for name, (_, numpys) in CHOSEN.items():
        assert_same(found[name], numpys(*pair), 2, name=name)


CONSTANT = np.array([0.5, -1.25, 2.0])

EACH = {
    "relu": (lambda x: x.relu(), lambda x: np.maximum(x, 0), 1),
    "abs": (abs, np.abs, 1),
    "clip": (lambda x: x.clip(-1, 0.5), lambda x: np.clip(x, -1, 0.5), 1),
    "clip from 0": (lambda x: x.clip(0, 2), lambda x: np.clip(x, 0, 2), 1),
    "minus": (lambda x: -x, lambda x: -x, 0),
    "square": (lambda x: x**2, lambda x: x**2, 2),
    "cube": (lambda x: x**3, lambda x: x**3, 20),
    "whole factor": (lambda x: x * -3, lambda x: x * -3, 0),
    "factor": (lambda x: 0.3 * x, lambda x: 0.3 * x, 5),
    "divided": (lambda x: x / 7, lambda x: x / 7, 5),
    "plus a number": (lambda x: 1.5 + x - 4, lambda x: 1.5 + x - 4, 0),
    "from a number": (lambda x: 2 - x, lambda x: 2 - x, 0),
    "number and comparison": (lambda x: (x > 1) + (x <= 0.5), lambda x: (x > 1) * 1 + (x <= 0.5), 0),
    "sigmoid": (lambda x: x.apply("sigmoid"), lambda x: 1 / (1 + np.exp(-x)), 3),
    "tanh": (lambda x: x.apply("tanh"), np.tanh, 3),
    "sum": (lambda x: x.sum(), np.sum, 0),
    "mean": (lambda x: x.mean(), np.mean, 4),
    "max": (lambda x: x.max(), np.max, 1),
    "min": (lambda x: x.min(), np.min, 1),
    "argmax": (lambda x: (x * 1).argmax(), lambda x: x.size - 1 - np.argmax(x.reshape(-1)[::-1]), 0),
    "flat": (lambda x: x.reshape(-1), lambda x: x.reshape(-1), 0),
    "T": (lambda x: x.T, lambda x: x.T, 0),
    "every second": (lambda x: x[::2] if x.ndim else x, lambda x: x[::2] if x.ndim else x, 0),
    "backwards, last": (lambda x: x[::-1, -1] if x.ndim > 1 else x, lambda x: x[::-1, -1] if x.ndim > 1 else x, 0),
    "spread": (lambda x: x.broadcast_to((2, *x.shape)) if x.ndim < 3 else x, lambda x: np.broadcast_to(x, (2, *x.shape)) if x.ndim < 3 else x, 0),
    "sum of relus": (lambda x: (x * 0.5).relu().sum(), lambda x: np.maximum(x * 0.5, 0).sum(), 200),
    "outer sum": (lambda x: x.reshape(-1, 1) + CONSTANT, lambda x: x.reshape(-1, 1) + CONSTANT, 0),
    "outer product": (lambda x: x.reshape(-1, 1) * CONSTANT, lambda x: x.reshape(-1, 1) * CONSTANT, 5),
}  # fmt: skip


@few
@given(x=SHAPES.flatmap(numbers))
def test_of_one_array(x):
    found = all_computed({name: lambda x, _, ours=ours: ours(x) for name, (ours, _, _) in EACH.items()}, x, 0.0)
    for name, (_, numpys, units) in EACH.items():
        assert_same(found[name], numpys(x), units, name=name)


@pytest.mark.parametrize("name", EACH)
def test_of_one_array_alone(name):
    """Also where a job is nothing else."""
    ours, numpys, units = EACH[name]
    x = np.arange(-3, 9).reshape(3, 4) / 4
    assert_same(computed(lambda x, _: ours(x), x, 0.0), numpys(x), units)


@few
@given(x=SHAPES.flatmap(numbers), data=st.data())
def test_over_axes(x, data):
    axes = data.draw(st.lists(st.sampled_from(range(x.ndim)), unique=True)) if x.ndim else []
    axis = tuple(axes) if len(axes) != 1 else axes[0] - data.draw(st.sampled_from((0, x.ndim)))
    names = ("sum", "mean", "max", "min")
    found = all_computed({name: lambda x, _, name=name: getattr(x, name)(axis) for name in names}, x, 0.0)
    for name in names:
        assert_same(found[name], getattr(np, name)(x, axis), 4, name=name)


@few
@given(x=arrays_of.array_shapes(min_dims=1, max_dims=3, max_side=5).flatmap(numbers), data=st.data())
def test_argmax_over_an_axis(x, data):
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    last = x.shape[axis] - 1 - np.argmax(np.flip(x, axis), axis)
    assert np.array_equal(computed(lambda x, _: x.argmax(axis), x, 0.0), last)


MATRICES = [
    ((3, 4), (4, 2)),
    ((4,), (4,)),
    ((4,), (4, 3)),
    ((2, 3), (3,)),
    ((2, 2, 3), (3, 4)),
    ((3, 4), (2, 4, 1)),
    ((2, 1, 5), (2, 5, 3)),
]


@pytest.mark.parametrize("shapes", MATRICES)
@pytest.mark.parametrize("ring", RINGS)
def test_matrix_products(ring, shapes):
    """Of two hidden arrays, and with one that everybody knows, on either side."""
    rng = np.random.default_rng(0)
    x, y = (rng.integers(-2048, 2048, shape) / 1024 for shape in shapes)
    assert_same(computed(lambda x, y: x @ y, x, y, ring), x @ y, 2, ring)
    assert_same(computed(lambda a, _: a @ y, x, 0.0, ring), x @ y, 2, ring)
    assert_same(computed(lambda _, b: x @ b, 0.0, y, ring), x @ y, 2, ring)


@few
@given(data=st.data(), axis=st.integers(-2, 1))
def test_concatenate(data, axis):
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=2, max_size=2))
    x, y = (data.draw(numbers((size, 3) if axis % 2 == 0 else (3, size))) for size in sizes)
    ours = lambda x, y: tensors.concatenate([x, y, x], axis)
    assert_same(computed(ours, x, y), np.concatenate([x, y, x], axis), 0)


@few
@given(x=arrays_of.array_shapes(min_dims=1, max_dims=3, max_side=4).flatmap(numbers), data=st.data())
def test_transpose_and_reshape(x, data):
    order = data.draw(st.permutations(range(x.ndim)))
    assert_same(computed(lambda x, _: x.transpose(*order).reshape(-1, x.shape[0]), x, 0.0), x.transpose(order).reshape(-1, x.shape[0]), 0)


def test_large_arrays_of_several_tiles():
    rng = np.random.default_rng(0)
    x, y = rng.integers(-6000, 6001, (2, 300, 150)) / 2048
    assert_same(computed(lambda x, y: (x * y).relu(), x, y), np.maximum(x * y, 0), 2)
    assert_same(computed(lambda x, y: x @ y.T, x, y), x @ y.T, 2)


REFUSED = {
    "shapes that do not broadcast": (lambda x, y: x + np.zeros(3), r"arrays of shapes \(2, 4\) and \(3,\) do not broadcast"),
    "matrices that do not fit": (lambda x, y: x @ y, r"arrays of shapes \(2, 4\) and \(2, 4\) have no matrix product"),
    "a hidden divisor": (lambda x, y: x / y, "a hidden divisor is not possible"),
    "a division by zero": (lambda x, y: x / 0, "a division by zero"),
    "a hidden condition": (lambda x, y: x if x > y else y, "a hidden value decides nothing in Python"),
    "a text": (lambda x, y: x + "1", "an operand must be a tensor of this job, a number or an array, not a str"),
    "an infinite number": (lambda x, y: x * np.inf, "a constant holds infinite or undefined numbers"),
    "an axis": (lambda x, y: x.sum(2), r"axis 2 of an array of shape \(2, 4\)"),
    "an index": (lambda x, y: x[4], r"index 4 of axis 0: must be a slice, or a whole number below 2"),
    "an empty slice": (lambda x, y: x[2:], "leaves nothing of its 2 numbers"),
    "indices": (lambda x, y: x[0, 0, 0], r"3 indices for an array of shape \(2, 4\)"),
    "a hidden index": (lambda x, y: x[y], "index Tensor.* of axis 0"),
    "a reshape": (lambda x, y: x.reshape(3, 3), r"an array of shape \(2, 4\) cannot be reshaped to \(3, 3\)"),
    "axes": (lambda x, y: x.transpose(0, 0), r"axes \(0, 0\) are not those of an array of shape \(2, 4\)"),
    "a broadcast": (lambda x, y: x.broadcast_to((2, 1)), r"an array of shape \(2, 4\) cannot be broadcast to \(2, 1\)"),
    "four axes": (lambda x, y: x.reshape(2, 2, 2, 1), "an array has up to 3 axes of at least one number"),
    "an empty array": (lambda x, y: x + np.zeros((0, 4)), "an array has up to 3 axes of at least one number"),
    "bounds": (lambda x, y: x.clip(1, 1), "clip: the lower bound 1 must be below 1"),
    "a function": (lambda x, y: x.apply("exp"), "no function 'exp': there are sigmoid, tanh"),
    "a power": (lambda x, y: x**0.5, "a power must be a whole number from 1 to 64"),
    "a condition": (lambda x, y: tensors.where(True, x, y), "where: the condition must be a tensor"),
    "one array": (lambda x, y: tensors.concatenate([x]), "concatenate: takes two arrays or more"),
    "arrays together": (lambda x, y: tensors.concatenate([x, y[:, :3]]), "cannot be put together along axis 0"),
    "a constant too large": (lambda x, y: x + 1e15, "does not fit a ring of 64 bits"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    job, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as refused:
        computed(job, np.zeros((2, 4)), np.zeros((2, 4)))
    assert "\n" not in str(refused.value)


def test_long_axes_and_large_maxima_are_refused():
    with pytest.raises(InputError, match="an axis has at most 65,536 numbers, not 65,537: reshape it into two"):
        tensors.trace(lambda p: p.input("x", (65537,), "client"))
    with pytest.raises(InputError, match="a maximum of 1,025 numbers: at most 1,024 at once"):
        tensors.trace(lambda p: p.input("x", (1025,), "client").max())
    with pytest.raises(InputError, match="131,072 numbers at once are more than 65,536"):
        tensors.trace(lambda p: p.input("x", (2, 65536), "client").sum())


def test_numpy_leaves_its_operators_to_tensors():
    assert_same(computed(lambda x, _: CONSTANT - x, [1.0, 2.0, 3.0], 0.0), CONSTANT - [1, 2, 3], 0)


def test_what_a_tensor_says_of_itself():
    seen = []
    tensors.trace(lambda p: (seen.append(p.input("x", (2, 3), "client")), p.reveal(seen[0], "client", "x")))
    (x,) = seen
    assert (x.ndim, x.size, len(x), repr(x)) == (2, 6, 2, f"Tensor({x.node}, shape=(2, 3))") and hash(x) == hash(x)
