"""Parts are each done once, whoever does them, and scratch is its thread's and its owner's alone."""

import threading
from concurrent import futures

import numpy as np
import pytest

from threepc.kernels import threads
from threepc.kernels.threads import Scratch, run_parts


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_every_part_is_done_once(count):
    done = []
    run_parts(lambda *part: done.append(part), [(i, i + 1) for i in range(count)])
    assert sorted(done) == [(i, i + 1) for i in range(count)]


def test_parts_run_side_by_side_and_the_first_in_this_thread():
    """Each of two parts waits for the other, so that one after the other would never end."""
    meeting, seen = threading.Barrier(2, timeout=60), {}

    def work(part):
        seen[part] = threading.current_thread()
        meeting.wait()

    run_parts(work, [(0,), (1,)])
    assert seen[0] is threading.current_thread() and seen[1] is not seen[0]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_comes_through_once_all_have_ended(failing):
    done = []

    def work(part):
        if part == failing:
            raise ValueError(f"part {part}")
        done.append(part)

    with pytest.raises(ValueError, match=f"part {failing}"):
        run_parts(work, [(0,), (1,), (2,)])
    assert len(done) == 2


@pytest.mark.parametrize("again", (0, 2))
def test_an_interrupt_comes_through_once_no_part_runs(monkeypatch, again):
    """Interrupted while it waits, too, where parts that have not begun never do."""
    begun, go_on, ended, waits = threading.Semaphore(0), threading.Event(), [], []

    def work(part):
        if part == 0:
            assert begun.acquire(timeout=60)
            raise KeyboardInterrupt
        begun.release()
        assert go_on.wait(60)
        ended.append(part)

    def wait(running):
        waits.append(len(running))
        if len(waits) <= again:  # it is interrupted again while it waits
            raise KeyboardInterrupt
        go_on.set()
        return futures.wait(running)

    monkeypatch.setattr(threads, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        run_parts(work, [(part,) for part in range(50)])
    assert len(waits) == 1 + again and len(ended) == waits[-1] and (1 <= waits[-1] < 49 if again else waits[-1] == 49)


def test_scratch_is_zero_at_first_and_kept():
    scratch = Scratch()
    array = scratch.words("a", 10, np.uint64)
    assert array.dtype == np.uint64 and array.shape == (10,) and not array.any()
    array[:] = 5
    assert (scratch.words("a", 4, np.uint64) == 5).all()
    assert not scratch.words("a", 11, np.uint64).any()


def test_scratch_of_another_name_type_owner_or_thread_is_another():
    scratch, other, arrays = Scratch(), Scratch(), []
    arrays += [scratch.words("a", 8, np.uint64), scratch.words("b", 8, np.uint64), scratch.words("a", 8, np.uint32)]
    arrays.append(other.words("a", 8, np.uint64))
    thread = threading.Thread(target=lambda: arrays.append(scratch.words("a", 8, np.uint64)))
    thread.start()
    thread.join()
    for i, array in enumerate(arrays):
        array[:] = i
    assert [int(array[0]) for array in arrays] == [0, 1, 2, 3, 4]
