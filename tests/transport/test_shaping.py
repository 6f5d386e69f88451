"""The simulated pipe, on a clock that only tests move."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from threepc.choices import NETWORKS, LinkPreset
from threepc.errors import RunError
from threepc.transport.channel import Channel
from threepc.transport.connection import NoAnswerError
from threepc.transport.framing import HEADER_BYTES
from threepc.transport.memory import pair
from threepc.transport.shaping import Downlink, Pipe, Shaper


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


def test_what_is_waited_for_has_half_the_rate_beside_bulk(clock):
    pipe = Shaper(8e9, 1e-6, clock, clock.sleep)
    assert pipe.arrival(1000) == 5_000 + 1000 + 1000
    assert pipe.arrival(100, waited_for=True) == 5_000 + 200 + 1000
    assert pipe.arrival(100, waited_for=True) == 5_000 + 400 + 1000, "one after the other"
    assert pipe.arrival(50) == 5_000 + 1250 + 1000, "bulk comes after all of it"
    clock.now += 1_240
    assert pipe.arrival(100, waited_for=True) == 5_000 + 1240 + 110 + 1000, "ten bytes of bulk are left"
    clock.now += 1_000
    assert pipe.arrival(100, waited_for=True) == 5_000 + 2240 + 100 + 1000
    assert pipe.arrival(0) == 5_000 + 2240 + 100 + 1000


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 200), st.booleans()), min_size=1, max_size=12))
def test_a_pipe_carries_no_more_than_its_rate(sent):
    """All that was sent is through no sooner than its bytes take, and each kind in the order of sending."""
    pipe, now, through = Pipe(8e9), 0, {False: [0], True: [0]}
    for size, pause, waited_for in sent:
        now += pause
        begun, ended = pipe.through(now, now, size, waited_for)
        assert begun >= now and ended >= begun + size
        through[waited_for].append(ended)
    assert all(ends == sorted(ends) for ends in through.values())
    assert pipe.through(0, 0, 0)[1] >= sum(size for size, *_ in sent)


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


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_impossible_hosts_are_refused(rate):
    for host in (Pipe, Downlink):
        with pytest.raises(ValueError, match="positive rate"):
            host(rate)


def test_peers_share_an_uplink(clock):
    uplink = Pipe(8e9)  # a byte takes one nanosecond
    one, two = (Shaper(rate, 1e-6, clock, clock.sleep, uplink=uplink) for rate in (float("inf"), 4e9))
    assert one.arrival(100) == 5_000 + 100 + 1000
    assert two.arrival(100) == 5_000 + 100 + 200 + 1000, "the slower pipe begins when the message's first byte has left the uplink"
    assert one.arrival(10) == 5_000 + 210 + 1000, "the uplink is not held up by the slower pipe"


class Incoming:
    """Connections of one process, whose peers send at 8 Gbit/s each: a byte a nanosecond."""

    def __init__(self, clock, count, rate):
        self.clock, self.downlink = clock, Downlink(rate, clock, clock.sleep)
        pairs = [pair() for _ in range(count)]
        self.senders = [Channel(far, ("client", "server"), shaper=Shaper(8e9, 1e-6, clock, clock.sleep)) for far, _ in pairs]
        own = [Shaper(8e9, 1e-6, clock, clock.sleep, downlink=self.downlink) for _ in pairs]
        self.receivers = [Channel(near, ("server", "client"), shaper=shaper) for shaper, (_, near) in zip(own, pairs, strict=True)]
        self.sent = [0] * count

    def send(self, index, size, at=None):
        """A message of `size` bytes in all."""
        if at is not None:
            self.clock.now = at
        payload = size - HEADER_BYTES - 10
        self.senders[index].send(0, [np.zeros(payload, np.uint8)], "online")
        self.sent[index] = payload

    def receive(self, index, timeout=...):
        self.receivers[index].receive(0, [(np.uint8, (self.sent[index],))], timeout)
        return self.clock.now


def test_a_downlink_as_fast_as_what_comes_costs_nothing(clock):
    incoming = Incoming(clock, 1, 8e9)
    incoming.send(0, 1000)
    assert incoming.receive(0) == 5_000 + 1000 + 1000


def test_a_slow_downlink_takes_its_own_time_from_the_first_byte_on(clock):
    incoming = Incoming(clock, 1, 2e9)
    incoming.send(0, 1000)
    incoming.send(0, 1000)
    assert incoming.receive(0) == 6_000 + 4000
    assert incoming.receive(0) == 6_000 + 8000


def test_what_comes_at_once_shares_a_downlink_equally(clock):
    incoming = Incoming(clock, 2, 4e9)  # two nanoseconds a byte
    incoming.send(0, 10_000)
    incoming.send(1, 1000)
    assert incoming.receive(1) == 6_000 + 4000, "a small message does not wait behind a large one"
    assert incoming.receive(0) == 6_000 + 22_000, "the large one has lost what the small one took"


def test_a_downlink_lets_through_what_nobody_reads_yet(clock):
    incoming = Incoming(clock, 2, 4e9)
    incoming.send(0, 1000, at=10_000)
    incoming.send(1, 1000, at=20_000)
    assert incoming.receive(1) == 21_000 + 2000, "what came before was through by then, though it was not received"
    assert incoming.receive(0) == 23_000


def test_who_comes_later_slows_down_what_is_under_way(clock):
    incoming = Incoming(clock, 2, 4e9)
    incoming.send(0, 10_000)
    with pytest.raises(NoAnswerError, match="has not answered"):
        incoming.receive(0, timeout=0)
    incoming.send(1, 1000, at=20_000)
    assert incoming.receive(0) == 26_000 + 2000
    assert incoming.receive(1) == 28_000


def test_messages_from_before_a_channel_come_through_its_downlink_too(clock):
    far, near = pair()
    sender = Channel(far, ("client", "provider"), shaper=Shaper(8e9, 0, clock, clock.sleep))
    for _ in range(2):
        sender.send(0, [np.zeros(990 - HEADER_BYTES, np.uint8)], "online")
    downlink = Downlink(4e9, clock, clock.sleep)
    receiver = Channel(near, ("provider", "peer"), shaper=Shaper(float("inf"), 0, clock, clock.sleep, downlink=downlink))
    sender.send(0, [np.zeros(990 - HEADER_BYTES, np.uint8)], "online")
    for due in (7_000, 9_000):
        receiver.receive(0, [(np.uint8, (990 - HEADER_BYTES,))])
        assert clock.now >= due
    receiver.identify("client", Shaper(8e9, 0, clock, clock.sleep, downlink=downlink))
    receiver.receive(0, [(np.uint8, (990 - HEADER_BYTES,))])
    assert receiver.link == ("provider", "client")


def test_a_downlink_hears_no_strangers(clock):
    far, near = pair()
    receiver = Channel(near, ("server", "client"), shaper=Shaper(8e9, 0, clock, clock.sleep, downlink=Downlink(4e9, clock, clock.sleep)))
    far.send([b"no message"])
    with pytest.raises(RunError, match="no message of this protocol"):
        receiver.receive(0, [])


@given(
    sizes=st.lists(st.tuples(st.integers(0, 2), st.integers(100, 20_000), st.integers(0, 30_000)), min_size=1, max_size=12),
    rate=st.sampled_from([1e9, 3e9, 8e9, 20e9]),
)
def test_a_downlink_keeps_busy_and_never_exceeds_its_rate(sizes, rate):
    clock = FakeClock()
    incoming, begun = Incoming(clock, 3, rate), clock.now
    expected = [[], [], []]
    for index, size, pause in sizes:
        incoming.send(index, size, at=clock.now + pause)
        expected[index].append(incoming.sent[index])
    for index, payloads in enumerate(expected):
        for payload in payloads:
            incoming.receivers[index].receive(0, [(np.uint8, (payload,))])
    total, pauses = sum(size for _, size, _ in sizes), sum(pause for _, _, pause in sizes)
    downlink, slack = total * 8e9 / rate, 4 * len(sizes)
    assert downlink - slack <= clock.now - begun <= pauses + total + 1000 + downlink + slack
