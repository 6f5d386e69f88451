"""Byte budgets: nothing is lost, nothing stands still, and no more waits for a receiver than was allowed."""

import dataclasses
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.party.parties import assert_close, images, small_model
from threepc.errors import RunError
from threepc.party import pacing
from threepc.party.one_host import ThreeThreads
from threepc.party.pacing import PacedReceiver, PacedSender
from threepc.transport import memory
from threepc.transport.channel import Channel
from threepc.transport.connection import NoAnswerError
from threepc.transport.framing import Control

GRANT = 1 << 16
"""Smaller than in use, so that small messages and a small network are large against it."""


@pytest.fixture(autouse=True, scope="module")
def small_grants():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pacing, "GRANT", GRANT)
        yield


def channels(timeout=60.0):
    links = ("provider", "server"), ("server", "provider")
    return [Channel(end, link, timeout=timeout) for end, link in zip(memory.pair(), links)]


class Waiting:
    """Counts the bytes that were sent and not yet received, and the most that ever were."""

    def __init__(self, channel, receiver):
        self.now = self.most = 0
        self._lock, self._send, self._receive = threading.Lock(), channel.send, receiver.receive
        channel.send, receiver.receive = self.send, self.receive

    def send(self, op, parts, phase):
        with self._lock:
            self.now += sum(part.nbytes for part in parts)
            self.most = max(self.most, self.now)
        self._send(op, parts, phase)

    def receive(self, op, layout):
        parts = self._receive(op, layout)
        with self._lock:
            self.now -= sum(part.nbytes for part in parts)
        return parts


def transfer(sizes, budget):
    """Send messages of `sizes` bytes to a receiver that takes them as they come; the most bytes that waited."""
    a, b = channels()
    waiting = Waiting(a, b)
    sender, receiver, errors = PacedSender(a, budget), PacedReceiver(b), []

    def send():
        try:
            for op, size in enumerate(sizes):
                sender.send(op, [np.full(size, op % 256, np.uint8)], "offline")
        except RunError as error:
            errors.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    for op, size in enumerate(sizes):
        (part,) = receiver.receive(op, [(np.uint8, (size,))])
        assert part.size == size and (part == op % 256).all()
    thread.join()
    assert not errors
    return waiting.most


@settings(max_examples=60)
@given(st.lists(st.sampled_from((0, 1, 100, GRANT - 1, GRANT, GRANT + 1, 3 * GRANT, 5 * GRANT)), max_size=30), st.integers(0, 8))
def test_any_messages_pass_any_budget(sizes, grants):
    """Also a message larger than the budget, after small ones that were not worth a grant: neither may wait for the other then."""
    budget = grants * GRANT
    assert transfer(sizes, budget) <= max(budget, GRANT + max(sizes, default=0))


def test_a_sender_that_has_used_its_budget_waits():
    a, b = channels(timeout=0.05)
    sender, receiver = PacedSender(a, 4 * GRANT), PacedReceiver(b)
    block = np.zeros(GRANT, np.uint8)
    for op in range(4):
        sender.send(op, [block], "offline")
    with pytest.raises(NoAnswerError):
        sender.send(4, [block], "offline")
    for op in range(2):
        receiver.receive(op, [(np.uint8, block.shape)])
    with pytest.raises(NoAnswerError):  # however much credit has come, as long as it is not enough
        sender.send(4, [np.zeros(3 * GRANT, np.uint8)], "offline")
    sender.send(4, [block], "offline")


def test_settled_accounts_leave_the_whole_budget():
    """As between two inferences whose offline phases must fit the budget as a whole."""
    a, b = channels(timeout=0.5)
    sender, receiver = PacedSender(a, 2 * GRANT), PacedReceiver(b)
    for op in range(6):
        sender.send(op, [np.zeros(GRANT, np.uint8)], "offline")
        if op % 2:
            for each in (op - 1, op):
                receiver.receive(each, [(np.uint8, (GRANT,))])
            receiver.settle()


def test_a_receiver_that_goes_wakes_the_sender():
    a, b = channels()
    sender = PacedSender(a, 0)
    sender.send(0, [np.zeros(2 * GRANT, np.uint8)], "offline")
    b.abort("the server has had enough")
    with pytest.raises(RunError, match="the server has had enough"):
        sender.send(1, [np.zeros(1, np.uint8)], "offline")


@pytest.mark.parametrize("granted", (-1, 101, 1 << 62, True, 1.0, "5", None))
def test_credit_is_for_what_was_sent_and_for_no_more(granted):
    """Who grants more, and reads nothing, would have its sender hold what waits for it, beyond any budget."""
    channel, _ = channels()
    sender = PacedSender(channel, 0)
    sender.send(0, [np.zeros(100, np.uint8)], "offline")
    with pytest.raises(RunError, match=r"grants credit for more than was sent to it|without a proper 'bytes'"):
        sender.take(Control("credit", {"bytes": granted}))
    sender.take(Control("credit", {"bytes": 100}))


@pytest.mark.parametrize("budget, told", [(1, False), (3 * GRANT, False), (1, True)])
def test_inferences_with_a_tiny_budget(budget, told):
    """told: what the provider deals goes to the client, which grants credit for it as it is used."""
    model = small_model(channels=40)
    if told:
        names = tuple(node.name for node in model.public.graph.nodes if node.kind in ("relu", "maxpool"))
        model = dataclasses.replace(model, public=dataclasses.replace(model.public, to_client=names))
    assert model.public.plan(2).cost.offline[f"provider->{'client' if told else 'server'}"] > 3 * GRANT
    with ThreeThreads(model, budget=budget, timeout=20.0) as parties:
        for seed in range(2):
            x = images(2, seed)
            assert_close(model, x, parties.infer(x)[0])


def test_what_another_thread_consumes_while_credit_is_granted_is_granted_later(monkeypatch):
    a, b = channels()
    receiver, send, granted = PacedReceiver(b), b.send_control, []

    def send_and_consume(kind, fields):
        send(kind, fields)
        granted.append(fields["bytes"])
        if len(granted) == 1:
            receiver.used(5)

    monkeypatch.setattr(b, "send_control", send_and_consume)
    receiver.used(3)
    assert not granted, "so little is worth no message"
    for _ in range(3):
        receiver.settle()
    assert granted == [3, 5]
    a.close()
