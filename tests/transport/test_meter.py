"""Counters: sums by link, phase and op, and no count lost between threads."""

import threading

import pytest

from threepc.transport.meter import Count, Meter

UP, DOWN = ("client", "server"), ("server", "client")


def test_sums_by_every_key():
    meter = Meter()
    meter.add(UP, "online", 1, 100)
    meter.add(UP, "online", 1, 10)
    meter.add(UP, "offline", 2, 7)
    meter.add(DOWN, "online", 1, 3)
    assert meter.count() == Count(120, 4)
    assert meter.count(link=UP) == Count(117, 3)
    assert meter.count(phase="online") == Count(113, 3)
    assert meter.count(link=UP, op=1) == Count(110, 2)
    assert meter.count(phase="setup") == Count()
    assert meter.counts()[UP, "offline", 2] == Count(7, 1)


def test_overhead_is_apart():
    meter = Meter()
    meter.add(UP, "online", 1, 100)
    meter.add_overhead(UP, 9)
    meter.add_overhead(DOWN, 4)
    assert meter.count() == Count(100, 1)
    assert meter.overhead() == 13 and meter.overhead(UP) == 9
    assert list(meter.as_report()["links"]) == ["client->server", "server->client"]


def test_unknown_phases_are_refused():
    with pytest.raises(ValueError, match="setup, offline, online"):
        Meter().add(UP, "sometime", 1, 1)


def test_threads_lose_nothing():
    meter = Meter()

    def add():
        for i in range(2000):
            meter.add(UP, "online", i % 3, 5)
            meter.add_overhead(UP, 1)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.count() == Count(40_000, 8000)
    assert meter.overhead() == 8000
