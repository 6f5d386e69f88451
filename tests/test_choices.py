import subprocess
import sys

import pytest

from threepc.choices import NETWORKS, RINGS


@pytest.mark.parametrize("module", ["threepc.choices", "threepc.cli.options"])
def test_naming_a_choice_loads_no_library_of_numbers(module):
    """So that `threepc --help` and a mistyped option answer at once."""
    program = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}} & {{'numpy', 'numba', 'torch'}}))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == []


def test_every_ring_has_its_bits_for_activations():
    from threepc.plan.precision import FRACTION

    assert set(RINGS) == set(FRACTION)


def test_presets_are_those_of_the_command_line():
    assert list(NETWORKS) == ["none", "lan", "lan10", "wan", "wan352"]
