import subprocess
import sys

import pytest

from threepc.choices import NETWORKS, RINGS, HostRates, read_links
from threepc.errors import InputError


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


def test_rates_of_hosts():
    assert read_links("") == {}
    assert read_links("server=1G,client=20M/100M") == {"server": HostRates(1e9, 1e9), "client": HostRates(20e6, 100e6)}
    assert read_links("each=0.5k") == dict.fromkeys(("client", "server", "provider"), HostRates(500.0, 500.0))


@pytest.mark.parametrize(
    "text, reason",
    [
        ("server", "'server' is not PARTY=RATE or PARTY=UP/DOWN, such as"),
        ("server=1", "'server=1' is not"),
        ("server=1e3M", "is not"),
        ("server=-1M", "is not"),
        ("server=infG", "is not"),
        ("server=\u0661G", "is not"),
        ("server=1G/", "is not"),
        ("server=1G,", "'' is not"),
        ("server=1G, client=1G", "' client=1G' is not"),
        ("peer=1G", "is not"),
        ("server=1G/0M", "server=1G/0M: a rate must be more than 0"),
        ("server=1G,server=2G", "the rate of the server is said twice"),
        ("each=1G,client=2G", "the rate of the client is said twice"),
        ("x" * 1000, "'" + "x" * 80 + "' is not"),
    ],
)
def test_what_is_no_rate(text, reason):
    with pytest.raises(InputError, match=r"^links: ") as caught:
        read_links(text)
    assert reason in str(caught.value) and len(str(caught.value)) < 300
