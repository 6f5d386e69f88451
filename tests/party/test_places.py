"""Places for sessions: so many at once, and no key keeps the others out."""

import threading

import pytest

from threepc.party.places import Places


class Visitor:
    """Takes a place in a thread of its own, and keeps it until it is told to leave."""

    def __init__(self, places, key):
        self.numbers, self.has_come, self._leaves = [], threading.Event(), threading.Event()
        self.waits = threading.Event()
        self._thread = threading.Thread(target=self._visit, args=(places, key))
        self._thread.start()

    def _visit(self, places, key):
        with places.taken(key, self._note, every=0.01):
            self.has_come.set()
            self._leaves.wait()

    def _note(self, number):
        self.numbers.append(number)
        self.waits.set()

    def leave(self):
        self._leaves.set()
        self._thread.join()


def test_places_are_taken_until_there_are_none():
    places = Places(2)
    one, two = Visitor(places, b"a"), Visitor(places, b"a")
    assert one.has_come.wait(60) and two.has_come.wait(10) and one.numbers == two.numbers == []
    three = Visitor(places, b"a")
    assert three.waits.wait(60) and set(three.numbers) == {1} and not three.has_come.is_set()
    one.leave()
    assert three.has_come.wait(60)
    two.leave()
    three.leave()


def test_the_key_that_holds_least_comes_first():
    places = Places(2)
    greedy = [Visitor(places, b"greedy") for _ in range(2)]
    for each in greedy:
        assert each.has_come.wait(60)
    more = []
    for _ in range(3):
        more.append(Visitor(places, b"greedy"))
        assert more[-1].waits.wait(60)
    late = Visitor(places, b"another")
    assert late.waits.wait(60) and late.numbers[0] == 1
    greedy[0].leave()
    assert late.has_come.wait(60) and not any(each.has_come.is_set() for each in more)
    for each in (late, greedy[1], *more):
        each.leave()


def test_who_goes_away_while_waiting_leaves_no_gap():
    places = Places(1)
    holder = Visitor(places, b"a")
    assert holder.has_come.wait(60)

    def go(number):
        raise RuntimeError(f"number {number} goes")

    with pytest.raises(RuntimeError, match="number 1 goes"), places.taken(b"a", go, every=0.01):
        pytest.fail("there was no place")
    holder.leave()
    after = Visitor(places, b"b")
    assert after.has_come.wait(60) and after.numbers == []
    after.leave()


def test_a_key_takes_no_more_than_its_part_of_the_places():
    places = Places(3, of_one=1)
    greedy, more = Visitor(places, b"greedy"), []
    assert greedy.has_come.wait(60)
    more = [Visitor(places, b"greedy") for _ in range(2)]
    for each in more:
        assert each.waits.wait(60)
    other = Visitor(places, b"another")
    assert other.has_come.wait(60)
    vouched_for = Visitor(places, None)
    assert vouched_for.has_come.wait(60) and not any(each.has_come.is_set() for each in more)
    for each in (other, vouched_for):
        each.leave()
    assert not any(each.has_come.wait(0.05) for each in more)
    greedy.leave()
    assert more[0].has_come.wait(60)
    for each in more:
        each.leave()
