"""Progress where there is no terminal: what takes long is named, and then told ever more rarely."""

import io
import time

import pytest
from rich.console import Console

from threepc import console
from threepc.console import MOST_QUIET_S, QUIET_S, Display


class Clock:
    """Stands for the time, and for the timers that fire as it passes."""

    def __init__(self):
        self.now, self.timers = 0.0, []

    def pass_by(self, seconds):
        self.now += seconds
        for timer in [each for each in self.timers if each.due <= self.now]:
            self.timers.remove(timer)
            timer.function(*timer.arguments)

    def timer(self, seconds, function, arguments):
        return Timer(self, self.now + seconds, function, arguments)


class Timer:
    def __init__(self, clock, due, function, arguments):
        self.clock, self.due, self.function, self.arguments = clock, due, function, arguments

    def start(self):
        self.clock.timers.append(self)

    def cancel(self):
        if self in self.clock.timers:
            self.clock.timers.remove(self)


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    monkeypatch.setattr(console.threading, "Timer", made.timer)
    return made


@pytest.fixture
def written():
    return io.StringIO()


@pytest.fixture
def display(written):
    return Display(Console(file=written, width=20))


def test_what_is_quick_says_nothing(display, written, clock):
    with display.stage("loading") as tell:
        tell("a part")
        clock.pass_by(QUIET_S / 2)
    with display.bar("counting", 3) as advance:
        advance(3)
    clock.pass_by(10 * QUIET_S)
    assert written.getvalue() == ""


def test_what_takes_long_is_named_even_without_a_detail(display, written, clock):
    with display.stage("loading [a model] with a long name"):
        clock.pass_by(2 * QUIET_S)
        clock.pass_by(MOST_QUIET_S)
    assert written.getvalue() == "loading [a model] with a long name ...\n"


def test_details_come_ever_more_rarely(display, written, clock):
    with display.stage("loading") as tell:
        for second in range(601):
            tell(f"{second} s")
            clock.pass_by(1)
    lines = written.getvalue().splitlines()
    assert lines[:5] == ["loading ...", "loading: 2 s", "loading: 6 s", "loading: 14 s", "loading: 30 s"]
    assert [int(line.split()[1]) for line in lines[6:]] == list(range(122, 601, int(MOST_QUIET_S)))


def test_a_bar_counts(display, written, clock):
    with display.bar("evaluating", 50_000) as advance:
        for _ in range(5):
            clock.pass_by(1)
            advance(1234)
    assert written.getvalue().splitlines() == ["evaluating ...", "evaluating: 2,468 of 50,000"]


def test_a_narrow_terminal_loses_no_column(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    phases = {"bytes": 12_345_678, "messages": 1}
    console.print_table(console.links_table({"client->server": {"setup": phases, "offline": phases, "online": phases}}))
    header, _, row, _ = capsys.readouterr().out.splitlines()
    assert header.split() == ["link", "setup", "offline", "online", "total", "MB", "messages"]
    assert row.split() == ["client", "->", "server", "12.35", "12.35", "12.35", "24.69", "1"]


@pytest.mark.parametrize("width", range(38, 50))
def test_words_that_name_rows_are_never_folded(monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    table = console.new_table("", "offline", "online", "setup, once", right=("offline", "online", "setup, once"), words=("",))
    table.add_row("megabytes", "1,406", "642", "1234.50")
    console.print_table(table)
    assert capsys.readouterr().out.splitlines()[-1].split() == ["megabytes", "1,406", "642", "1234.50"]
