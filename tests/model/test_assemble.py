"""What is said of a model before it runs: the fraction that was chosen, the error to expect, and a warning where it is too large."""

import dataclasses
from functools import partial

import pytest
import torch
from torch import nn

import threepc
from threepc.errors import InputError
from threepc.images.card import ModelCard, Preprocessing
from threepc.model.assemble import Settings, _ranges_lines, assemble, doubt, warn_of_error
from threepc.plan.error import REFUSED, Expected

CARD = ModelCard("tiny", Preprocessing((8, 8), (0.0,) * 3, (1.0,) * 3))
IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def cancelling():
    """Two channels that differ by a thousandth, and that difference: no scale of 32 bits can hold it to 3 %."""
    first, second = nn.Conv2d(3, 2, 1, bias=False), nn.Conv2d(2, 2, 1, bias=False)
    with torch.no_grad():
        first.weight[:] = torch.tensor([[0.31, 0.52, -0.43], [0.3101, 0.5202, -0.4303]]).reshape(2, 3, 1, 1)
        second.weight[:] = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).reshape(2, 2, 1, 1)
    return nn.Sequential(first, nn.ReLU(), second)


def assembled(module, ring, **own):
    return assemble(module, IMAGES, CARD, Settings(ring, calibration=IMAGES.numpy(), **own))


def test_a_result_that_will_be_far_off_is_said_aloud():
    found = assembled(cancelling(), 32)
    assert found.expected.error > 0.03 and found.expected.images == 2
    assert doubt(found).startswith("results will be off by about") and "(40 or 48 or 64 bits)" in doubt(found)
    assert doubt(dataclasses.replace(found, expected=Expected((0.0199, 0.001), 0.0))) == ""
    assert "10 % of the classes" in doubt(dataclasses.replace(found, expected=Expected((0.001, 0.5), 0.1)))
    made = partial(threepc.local, cancelling(), IMAGES, ring=32, transport="memory")
    with pytest.warns(UserWarning, match="results will be off by") as told, made(allow_error=True):
        assert told[0].filename == __file__


def test_a_result_that_nobody_should_rely_on_is_refused_unless_that_is_allowed():
    found, said = assembled(cancelling(), 32), []
    for error, allowed, refused in ((REFUSED, False, False), (1.01 * REFUSED, False, True), (1.01 * REFUSED, True, False)):
        doubtful = dataclasses.replace(found, expected=Expected((0.0, error), 0.0))
        if refused:
            with pytest.raises(InputError, match=r"off by about 10 %.*40 or 48 or 64 bits.*--allow-error"):
                warn_of_error(doubtful, allowed, said.append)
        else:
            warn_of_error(doubtful, allowed, said.append)
    assert len(said) == 2 and all(line.startswith("results will be off by") for line in said)
    with pytest.raises(InputError, match="allow_error=True"), threepc.local(cancelling(), IMAGES, ring=32, transport="memory"):
        pass


def test_the_card_says_what_error_the_server_expects_and_from_what():
    found = assembled(cancelling(), 32)
    card = found.public.card
    assert card.expected_error == float(f"{found.expected.error:.2g}") and card.expected_images == "2 of 2 calibration images"
    artificial = assemble(nn.Sequential(nn.Conv2d(3, 2, 1)), IMAGES, CARD, Settings(32)).public
    assert artificial.card.expected_images == "8 artificial images" and 0 < artificial.card.expected_error < 0.03
    assert artificial.facts(1, None)["expected_error"] == artificial.card.expected_error


def test_the_error_to_expect_and_a_fraction_that_is_not_the_usual_one_are_said():
    torch.manual_seed(0)
    small, large = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        large.weight *= 8e3
    settings = Settings(32, calibration=IMAGES.numpy())
    lines = _ranges_lines(assembled(small, 32), settings)
    assert lines[-1].startswith("error to expect: ") and not any("instead of the usual" in line for line in lines)
    found = assembled(large, 32)
    assert (
        f"{found.public.precision.fraction} fractional bits of activations fit best, instead of the usual 11 (--frac-bits to choose)"
        in (_ranges_lines(found, settings))
    )
    chosen = assembled(large, 32, fraction=found.public.precision.fraction)
    assert not any("instead" in line for line in _ranges_lines(chosen, dataclasses.replace(settings, fraction=9)))


def test_a_clip_to_other_values_is_no_part_of_a_job():
    """The attribute `to` names the values of a clip, and the receiver of an output."""
    found = assembled(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Hardsigmoid(), nn.Conv2d(2, 2, 1)), 48)
    assert [node.kind for node in found.public.graph.nodes][2] == "clip"
