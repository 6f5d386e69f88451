"""Predictions follow the declared costs."""

from itertools import pairwise

import pytest

from benchmarks.costmodel import Constants, predict
from threepc.choices import LinkPreset

CONSTANTS = Constants(
    rates={"dense": 50e9, "depthwise": 5e9},
    relu_seconds={"provider offline": 16e-9, "client offline": 3e-9, "server online": 9e-9, "client online": 9e-9},
    relu_bytes={"offline": 33.0, "online": 15.5},
    message_seconds=1e-4,
    cores=2,
)
WORK = {
    "macs": {"dense": 4_000_000_000, "depthwise": 0},
    "offline": {"provider->server": 27_000_000, "client->server": 6_000_000},
    "online": {"server->client": 7_000_000, "client->server": 8_500_000},
    "messages": 200,
}


def test_a_free_network_costs_computation_and_messages():
    seconds = predict(WORK, CONSTANTS, None)
    assert seconds["offline"] == pytest.approx(0.08 + 0.016)
    assert seconds["online"] == pytest.approx(0.08 + 0.018 + 0.02)
    assert seconds["total"] >= seconds["online"]


def test_a_million_relus_take_their_core_time():
    work = WORK | {"macs": {"dense": 0, "depthwise": 0}, "messages": 0}
    assert predict(work, CONSTANTS, None)["online"] == pytest.approx(1e6 * 18e-9)


def test_slower_links_take_longer():
    rates = [predict(WORK, CONSTANTS, LinkPreset(rate, 0.0)) for rate in (10e9, 1e9, 1e8)]
    for faster, slower in pairwise(rates):
        assert all(slower[phase] >= faster[phase] for phase in faster)
    assert rates[-1]["offline"] == pytest.approx(27_000_000 * 8 / 1e8)
    assert rates[-1]["total"] >= 14_500_000 * 8 / 1e8


def test_every_online_message_waits_for_the_delay():
    near, far = (predict(WORK, CONSTANTS, LinkPreset(1e9, delay)) for delay in (0.0, 0.02))
    assert far["online"] - near["online"] == pytest.approx(200 * 0.02)
