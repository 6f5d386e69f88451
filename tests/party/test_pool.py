"""Several inferences of one client in flight: sessions that share what they may share, and no more of them than the server allows."""

import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest

from tests.party.parties import assert_close, images, serving, small_model
from threepc.errors import InputError, RunError
from threepc.party import inference, server, three_hosts
from threepc.party.client import ClientSession
from threepc.party.connector import MemoryConnector
from threepc.party.deployment import load
from threepc.party.keygen import generate
from threepc.party.offered import OfferedModel
from threepc.party.pool import Gathering, SessionPool, _Group, in_order
from threepc.party.session import Options
from threepc.party.weight_cache import HeldWeights

MODEL = small_model()
WAIT_S = 60.0


@pytest.fixture(scope="module", autouse=True)
def warm():
    """Before inferences are watched: what is rehearsed is one, too."""
    connector = MemoryConnector()
    with serving(connector, MODEL, Options(timeout=WAIT_S)), ClientSession(connector, Options(timeout=WAIT_S)):
        pass


class Deployed:
    """A client's side: `connect` for pools, and the sessions that it opened."""

    def __init__(self):
        self.connector, self.options, self.opened = MemoryConnector(), Options(timeout=WAIT_S, held=HeldWeights()), []

    def connect(self, tell):
        options = Options(timeout=WAIT_S, held=self.options.held, tell=tell)
        self.opened.append(ClientSession(self.connector, options))
        return self.opened[-1]

    def serving(self):
        return serving(self.connector, MODEL, self.options)


@pytest.fixture
def meeting(monkeypatch):
    """A barrier at the server: inferences go on once two are there at the same time."""
    barrier, serve = threading.Barrier(2), inference.serve

    def serve_together(*arguments):
        barrier.wait(WAIT_S)
        serve(*arguments)

    monkeypatch.setattr(inference, "serve", serve_together)
    return barrier


def test_two_are_in_flight_with_keys_of_their_own_and_the_weights_are_sent_once(meeting):
    deployed = Deployed()
    with deployed.serving(), SessionPool(deployed.connect, 2) as pool:
        batches = [images(1, seed) for seed in range(6)]
        for batch, (decoded, _) in zip(batches, in_order(pool.infer, batches, 2), strict=True):
            assert_close(MODEL, batch, decoded)
        one, two = deployed.opened
        assert one._online.session != two._online.session and one._stream._key != two._stream._key
        assert one._weights is two._weights
        assert one.setup_links["server->client"][0] > 0 and "server->client" not in two.setup_links
        assert pool.setup_links["server->client"] == one.setup_links["server->client"]


def test_sessions_of_a_client_share_its_simulated_links(tmp_path, monkeypatch):
    """Else several in flight would have several links, and what is measured over them would be a fairy tale."""
    generate(tmp_path)
    path = tmp_path / "deployment.yaml"
    path.write_text(path.read_text() + "network: wan352\n")
    monkeypatch.setattr(three_hosts, "ClientSession", lambda _, options: options)
    connect = three_hosts.sessions_of(load(path))
    one, two = connect(print), connect(print)
    for peer in ("server", "provider"):
        assert one.shaper("client", peer) is two.shaper("client", peer) is not None
    assert one.held is two.held


def test_sessions_are_opened_only_as_they_are_needed():
    deployed = Deployed()
    with deployed.serving(), SessionPool(deployed.connect, 4) as pool:
        for _ in range(3):
            pool.infer(images())
        assert len(deployed.opened) == 1


def test_no_session_with_another_model_joins():
    """The server may change what it offers between two sessions of one pool; answers of two networks are not mixed."""
    deployed = Deployed()
    with deployed.serving() as parties, SessionPool(deployed.connect, 2) as pool, pool.session():
        parties[0].offer_all([OfferedModel(small_model(channels=5))])
        with pytest.raises(RunError, match="another model than before"):
            pool.infer(images())
    assert [session.has_ended for session in deployed.opened] == [True, True]


def test_no_more_are_in_flight_than_the_server_allows_and_that_is_said(monkeypatch):
    monkeypatch.setattr(server, "SESSIONS", 2)
    deployed, said = Deployed(), []
    batches = [images(1, seed) for seed in range(8)]
    with deployed.serving(), SessionPool(deployed.connect, 5, warn=said.append) as pool:
        for batch, (decoded, _) in zip(batches, in_order(pool.infer, batches, 5), strict=True):
            assert_close(MODEL, batch, decoded)
    assert len(deployed.opened) == 2
    assert said and set(said) <= {
        f"{n} inference(s) in flight, and no more: the server has a further session of this client wait" for n in (1, 2, 3, 4)
    }


def test_a_failed_inference_takes_no_other_one_with_it(monkeypatch):
    deployed, serve, both, once = Deployed(), inference.serve, threading.Barrier(2), []

    def serve_or_fail(*arguments):
        both.wait(WAIT_S)
        if not once:
            once.append(True)
            raise RunError("this one fails", "lost")
        serve(*arguments)

    monkeypatch.setattr(inference, "serve", serve_or_fail)
    results = []

    def ask(pool, seed):
        try:
            results.append(pool.infer(images(1, seed))[0])
        except RunError as error:
            results.append(error)

    with deployed.serving(), SessionPool(deployed.connect, 2, reopens=True) as pool:
        threads = [threading.Thread(target=ask, args=(pool, seed)) for seed in (0, 0)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        failures = [result for result in results if isinstance(result, RunError)]
        assert len(failures) == 1 and "this one fails" in str(failures[0])
        assert_close(MODEL, images(), next(result for result in results if not isinstance(result, RunError)))
        monkeypatch.setattr(inference, "serve", serve)
        for _ in range(2):
            assert_close(MODEL, images(), pool.infer(images())[0])


def test_a_closed_pool_ends_what_runs_and_begins_nothing(monkeypatch):
    deployed, begun, failures = Deployed(), threading.Event(), []
    go_on = threading.Event()

    def hang(*_):
        begun.set()
        go_on.wait(WAIT_S)
        raise RunError("the client has gone")

    monkeypatch.setattr(inference, "serve", hang)

    def ask():
        try:
            pool.infer(images())
        except RunError as error:
            failures.append(str(error))

    with deployed.serving():
        pool = SessionPool(deployed.connect, 2, retries=3)
        thread = threading.Thread(target=ask)
        thread.start()
        assert begun.wait(WAIT_S)
        pool.close()
        thread.join(WAIT_S)
        go_on.set()
        assert len(failures) == 1
        with pytest.raises(RunError, match="this client was closed"):
            pool.infer(images())
    assert len(deployed.opened) == 1


class Counting:
    """A pool that notes the sizes of batches, and answers with the images' first numbers."""

    def __init__(self):
        self.sizes, self.first = [], threading.Event()

    def infer(self, batch):
        if not np.isfinite(batch).all():
            raise InputError("not a number")
        self.sizes.append(len(batch))
        return batch[:, 0, 0, :1], None

    def session(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def answers(gathering, inputs):
    results = [None] * len(inputs)

    def ask(place):
        try:
            results[place] = gathering.infer(inputs[place])[0]
        except InputError as error:
            results[place] = error

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_requests_that_wait_are_answered_together_each_with_its_own():
    pool = Counting()
    inputs = [images(1, seed) for seed in range(6)]
    results = answers(Gathering(pool, 3, WAIT_S), inputs)
    assert pool.sizes == [3, 3]
    for each, result in zip(inputs, results, strict=True):
        np.testing.assert_array_equal(result, each[:, 0, 0, :1])


def test_nobody_waits_longer_than_was_said_and_a_full_batch_not_at_all():
    pool = Counting()
    began = time.monotonic()
    Gathering(pool, 4, 0.05).infer(images(1))
    Gathering(pool, 4, WAIT_S).infer(images(4))
    Gathering(pool, 1, WAIT_S).infer(images(1))
    assert time.monotonic() - began < WAIT_S / 2 and pool.sizes == [1, 4, 1]


def test_a_bad_image_in_a_batch_is_bad_for_itself_alone():
    bad = images(1)
    bad[0, 0, 0, 0] = np.nan
    first, second = answers(Gathering(Counting(), 2, WAIT_S), [bad, images(1, 1)])
    assert isinstance(first, InputError)
    np.testing.assert_array_equal(second, images(1, 1)[:, 0, 0, :1])


def test_items_are_taken_as_results_are():
    taken = []

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    results = in_order(lambda number: number * number, items(), 3)
    assert next(results) == 0 and len(taken) == 6
    assert list(results) == [number * number for number in range(1, 20)]


def test_an_error_ends_it_at_its_place():
    results = in_order(lambda number: 1 // number, [2, 1, 0, 1], 4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


class Interrupted(threading.Event):
    """An event for which nobody can wait."""

    def wait(self, _=None):
        raise KeyboardInterrupt


def test_an_interrupt_ends_a_batch_that_was_to_be_formed_and_no_later_one_joins_it(monkeypatch):
    gathering = Gathering(Counting(), 2, WAIT_S)
    with monkeypatch.context() as patch:
        patch.setattr(_Group, "__init__", lambda self: vars(self).update(images=[], complete=Interrupted(), answer=Future()))
        with pytest.raises(KeyboardInterrupt):
            gathering.infer(images())
    assert gathering._open is None
    assert [result.shape for result in answers(gathering, [images(), images()])] == [(1, 1), (1, 1)]


def test_an_interrupt_behind_an_answer_is_raised_as_it_is(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Counting, "__exit__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Gathering(Counting(), 2, 0).infer(images())


def test_nobody_waits_for_others_once_it_is_closed(monkeypatch):
    pool, waits, event = Counting(), threading.Event(), threading.Event

    class Noticed(event):
        def wait(self, timeout=None):
            waits.set()
            return super().wait(timeout)

    gathering = Gathering(pool, 2, 1000.0)
    monkeypatch.setattr(_Group, "__init__", lambda self: vars(self).update(images=[], complete=Noticed(), answer=Future()))
    thread = threading.Thread(target=gathering.infer, args=(images(),), daemon=True)
    thread.start()
    assert waits.wait(WAIT_S)
    gathering.close()
    thread.join(WAIT_S)
    assert not thread.is_alive() and pool.sizes == [1]


def test_who_waits_for_a_session_tries_to_open_one_where_another_one_could_not(monkeypatch):
    deployed, opening, waiting, errors = Deployed(), threading.Event(), threading.Event(), []
    connect = deployed.connect

    def slowly(tell):
        if deployed.opened:
            opening.set()
            assert waiting.wait(WAIT_S)
        return connect(tell)

    def ask():
        try:
            pool.infer(images())
        except RunError as error:
            errors.append(str(error))

    with deployed.serving() as parties, SessionPool(slowly, 2) as pool, pool.session():
        parties[0].offer_all([OfferedModel(small_model(channels=5))])
        first, second = (threading.Thread(target=ask, daemon=True) for _ in range(2))
        wait_for = pool._changed.wait_for

        def noticed(predicate, timeout=None):
            if threading.current_thread() is second:
                waiting.set()
            return wait_for(predicate, timeout)

        monkeypatch.setattr(pool._changed, "wait_for", noticed)
        first.start()
        assert opening.wait(WAIT_S)
        second.start()
        for thread in (first, second):
            thread.join(WAIT_S)
        assert len(errors) == 2


def test_who_prepares_anew_holds_no_other_one_up(monkeypatch):
    """Where that fails the session is closed, and a party that is gone is waited for, which takes seconds."""
    deployed, preparing, go_on = Deployed(), threading.Event(), threading.Event()
    deployed.options = Options(timeout=WAIT_S, held=deployed.options.held, ahead=2)
    prepare = ClientSession.prepare_ahead

    def prepare_slowly(session, most=float("inf"), *, wait=False):
        if not wait and threading.current_thread().name == "slow":
            preparing.set()
            assert go_on.wait(WAIT_S)
        prepare(session, most, wait=wait)

    def connect(tell):
        deployed.opened.append(ClientSession(deployed.connector, Options(timeout=WAIT_S, held=deployed.options.held, tell=tell, ahead=2)))
        return deployed.opened[-1]

    with deployed.serving(), SessionPool(connect, 2) as pool:
        pool.prepare()
        pool.expect(5)
        monkeypatch.setattr(ClientSession, "prepare_ahead", prepare_slowly)
        slow = threading.Thread(target=pool.infer, args=(images(1),), name="slow")
        slow.start()
        try:
            assert preparing.wait(WAIT_S)
            pool.infer(images(1))
            assert sum(session.ready for session in deployed.opened) == 2
        finally:
            go_on.set()
            slow.join()
        assert sum(session.ready for session in deployed.opened) == 3
