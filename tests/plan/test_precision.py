"""Precisions: what is allowed, which bits a ReLU compares, and the way over the wire."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threepc.errors import InputError
from threepc.plan.precision import DEEPEST_TRUNCATION, FRACTION, MAX_TRUNCATION, MOST_ACTIVATION_BITS, WIDEST_WINDOW, Precision, span


@pytest.mark.parametrize("bits", FRACTION)
def test_default_of_every_ring_compares_all_that_is_left(bits):
    precision = Precision.default(bits)
    cut = bits - precision.fraction
    assert precision.comparison(cut) == (0, min(cut - 2, WIDEST_WINDOW))
    assert precision.of_weights("any") == precision.fraction == FRACTION[bits]


@pytest.mark.parametrize("bits", (0, 16, 33, 63, 128))
def test_other_rings_are_refused(bits):
    with pytest.raises(InputError, match=r"ring: must be one of 64, 48, 40, 32, 28, 24"):
        Precision(bits)
    with pytest.raises(InputError, match=f"^ring: must be one of 64, 48, 40, 32, 28, 24, not {bits}$"):
        Precision.default(bits)


@pytest.mark.parametrize("fraction", (0, 17, -1, 12.0, True, "12"))
def test_fractions_outside_what_a_gate_lifts_are_refused_by_name(fraction):
    with pytest.raises(InputError, match=r"^precision of 'fraction': fractional bits must be 1 to 16, not "):
        Precision(48, fraction)
    with pytest.raises(InputError, match=r"^precision of 'input_fraction': fractional bits must be 1 to 16, not "):
        Precision(48, 16, input_fraction=fraction)
    with pytest.raises(InputError, match=r"^precision of 'layer1\.conv': fractional bits must be 1 to 30, not "):
        Precision(48, 16, {"layer1.conv": 31 if fraction == 17 else fraction})


def test_activations_have_more_bits_where_truncations_are_deep():
    precision = Precision(48, MOST_ACTIVATION_BITS, truncation=MAX_TRUNCATION + 1)
    assert Precision.from_plain(precision.to_plain()) == precision
    with pytest.raises(InputError, match=r"^precision of 'fraction': fractional bits must be 1 to 19, not 20$"):
        Precision(48, MOST_ACTIVATION_BITS + 1, truncation=MAX_TRUNCATION + 1)


@pytest.mark.parametrize("truncation", (0, MAX_TRUNCATION - 1, DEEPEST_TRUNCATION + 1, 64, True, 16.0))
def test_truncations_beyond_what_a_lift_hides_are_refused(truncation):
    """A lift's pads have 32 bits at most: of a deeper one's carries the server would see the rest."""
    with pytest.raises(InputError, match="a truncation removes at most 16 to 24 bits, not "):
        Precision(48, 16, truncation=truncation)


@pytest.mark.parametrize("compared", ((-1, 8), (0, 0), (0, -3), (40, 8), (0, 48)))
def test_bits_that_a_ring_does_not_have_are_not_compared(compared):
    assert Precision(48, compared={"a": (39, 8)}).compared == {"a": (39, 8)}
    with pytest.raises(InputError, match=r"^precision of 'a': -?\d+ bits from bit -?\d+ on are not in a ring of 48 bits$"):
        Precision(48, compared={"a": compared})


def test_an_input_has_at_most_the_bits_of_activations():
    assert (Precision(48, 12).of_input, Precision(48, 12, input_fraction=9).of_input) == (12, 9)
    with pytest.raises(InputError, match=r"^precision: an input has at most the 12 fractional bits of activations, not 13$"):
        Precision(48, 12, input_fraction=13)


@pytest.mark.parametrize("window", ((-1, 5), (5, 5), (6, 5), (0, 47), (0.0, 5)))
def test_windows_outside_the_ring_are_refused(window):
    with pytest.raises(InputError, match=r"^drelu-window .*: must be LO:HI with 0 <= LO < HI <= 46 in a ring of 48 bits$"):
        Precision(48, 16, window=window)


@given(st.sampled_from((64, 48, 40, 32, 28, 24)), st.integers(1, 16), st.data())
def test_window_is_that_of_the_product(bits, shift, data):
    """Bits LO..HI-1 of the product are bits LO-shift..HI-shift-1 of what a truncation by `shift` leaves, as far as they exist."""
    low = data.draw(st.integers(0, bits - 3))
    high = data.draw(st.integers(low + 1, bits - 2))
    precision, cut = Precision(bits, 12, window=(low, high)), bits - shift
    if high <= shift:
        with pytest.raises(InputError, match="nothing of it is left"):
            precision.comparison(cut)
        return
    first, width = precision.comparison(cut)
    assert (first, first + width) == (max(low, shift) - shift, high - shift)
    assert first + width <= cut - 2


@given(
    st.sampled_from((64, 48, 40, 32)),
    st.integers(1, 16),
    st.dictionaries(st.text(min_size=1, max_size=8), st.integers(1, 30), max_size=3),
    st.none() | st.just((3, 20)),
    st.booleans(),
)
def test_survives_json(bits, fraction, weights, window, fewer):
    precision = Precision(bits, fraction, weights, window, max(1, fraction - 1) if fewer else None)
    assert ("input_fraction" in precision.to_plain()) == fewer
    assert Precision.from_plain(json.loads(json.dumps(precision.to_plain()))) == precision


@pytest.mark.parametrize(
    "change, reason",
    (
        ({"bits": 47}, "^ring: must be one of"),
        ({"bits": "48"}, "its numbers must be whole, from 0 to 64"),
        ({"bits": 48.0}, "its numbers must be whole, from 0 to 64"),
        ({"bits": None}, "its numbers must be whole, from 0 to 64"),
        ({"bits": [48]}, "its numbers must be whole, from 0 to 64"),
        ({"fraction": 0}, "'fraction': fractional bits must be"),
        ({"fraction": None}, "its numbers must be whole, from 0 to 64"),
        ({"weight_fraction": None}, "weight_fraction an object"),
        ({"weight_fraction": [1]}, "weight_fraction an object"),
        ({"weight_fraction": {"a": "b"}}, "its numbers must be whole, from 0 to 64"),
        ({"window": 3}, "window must be a pair or null"),
        ({"window": [1]}, "window must be a pair or null"),
        ({"window": ["a", "b"]}, "its numbers must be whole, from 0 to 64"),
        ({"window": [5, 1]}, "^drelu-window 5:1: must be LO:HI"),
        ({"early": "relu"}, "early must be a list of names"),
        ({"early": [1]}, "early must be a list of names"),
        ({"extra": 1}, "expected the keys bits, fraction, weight_fraction, window"),
    ),
)
def test_a_strangers_description_is_checked(change, reason):
    with pytest.raises(InputError, match=reason):
        Precision.from_plain(Precision().to_plain() | change)


@pytest.mark.parametrize("data", (None, [], "x", {}, {"bits": 48}))
def test_other_things_are_refused(data):
    with pytest.raises(InputError, match="expected the keys"):
        Precision.from_plain(data)


def test_one_number_is_no_span():
    assert span({18: 0}) == "18" and span([18, 16, 17]) == "16 to 18"
