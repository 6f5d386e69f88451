"""The simulated pipe, on a clock that only tests move."""

import pytest

from threepc.choices import NETWORKS, LinkPreset
from threepc.transport.shaping import Shaper


class FakeClock:
    def __init__(self):
        self.now = 5_000

    def __call__(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


@pytest.fixture
def clock():
    return FakeClock()


def test_messages_queue_in_one_pipe(clock):
    pipe = Shaper(8e9, 1e-6, clock, clock.sleep)  # a byte takes one nanosecond
    assert pipe.arrival(100) == 5_000 + 100 + 1000
    assert pipe.arrival(50) == 5_000 + 150 + 1000
    clock.now += 10_000
    assert pipe.arrival(1) == 15_000 + 1 + 1000


def test_waiting_ends_at_the_arrival(clock):
    pipe = Shaper(8e9, 1e-3, clock, clock.sleep)
    arrival = pipe.arrival(500)
    assert pipe.wait(arrival)
    assert clock.now == arrival
    assert pipe.wait(arrival - 100)
    assert clock.now == arrival


def test_waiting_respects_the_timeout(clock):
    pipe = Shaper(8e9, 1.0, clock, clock.sleep)
    arrival = pipe.arrival(0)
    assert not pipe.wait(arrival, timeout=0.25)
    assert clock.now == 5_000 + 250_000_000
    assert not pipe.wait(arrival, timeout=-1)
    assert pipe.wait(arrival, timeout=0.75)


@pytest.mark.parametrize("rate, delay", [(0, 0), (-1, 0), (1, -1), (float("nan"), 0)])
def test_impossible_links_are_refused(rate, delay):
    with pytest.raises(ValueError, match="positive rate"):
        Shaper(rate, delay)


def test_presets():
    assert NETWORKS["none"] is None
    assert NETWORKS["wan"] == LinkPreset(100e6, 0.02)
    assert NETWORKS["lan"] == LinkPreset(1e9, 0.0001)
