"""Counters: one for each link direction, phase and op, and no count lost between threads."""

import threading

import pytest

from threepc.transport.meter import Count, Meter

UP, DOWN = ("client", "server"), ("server", "client")


def test_every_link_phase_and_op_has_its_own_count():
    meter = Meter()
    meter.add(UP, "online", 1, 100)
    meter.add(UP, "online", 1, 10)
    before = meter.counts()
    meter.add(UP, "offline", 2, 7)
    meter.add(DOWN, "online", 1, 0)
    assert before == {(UP, "online", 1): Count(110, 2)}
    assert meter.counts() == before | {(UP, "offline", 2): Count(7, 1), (DOWN, "online", 1): Count(0, 1)}


def test_unknown_phases_are_refused():
    with pytest.raises(ValueError, match="setup, offline, online"):
        Meter().add(UP, "sometime", 1, 1)


def test_threads_lose_nothing():
    meter = Meter()

    def add():
        for i in range(2000):
            meter.add(UP, "online", i % 2, 5)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.counts() == {(UP, "online", op): Count(20_000, 4000) for op in (0, 1)}
