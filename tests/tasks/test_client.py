"""The client of a deployment from Python: many images, several predictions at once, and what is wrong with one of them."""

import asyncio
import dataclasses
import threading
import time

import numpy as np
import pytest

import threepc
from tests.party.parties import clear, images, serving, small_model
from threepc.errors import InputError, RunError
from threepc.party import inference, three_hosts
from threepc.party.client import ClientSession
from threepc.party.connector import MemoryConnector
from threepc.party.keygen import generate
from threepc.party.session import Options, log
from threepc.party.warmup import warm_up
from threepc.party.weight_cache import HeldWeights

MODEL = small_model()
OPTIONS = Options(timeout=60.0)


@pytest.fixture(autouse=True)
def silence(monkeypatch):
    """Commands that other tests ran in this process have left handlers that write to where those tests looked."""
    monkeypatch.setattr(log, "handlers", [])


@pytest.fixture
def deployment(tmp_path, monkeypatch):
    """A served deployment's folder; `opened` are its clients' sessions."""
    warm_up(MODEL.public.precision)
    generate(tmp_path / "keys")
    connector, options, opened = MemoryConnector(), dataclasses.replace(OPTIONS, held=HeldWeights()), []

    def connect(tell):
        opened.append(ClientSession(connector, dataclasses.replace(options, tell=tell)))
        return opened[-1]

    monkeypatch.setattr(three_hosts, "sessions_of", lambda *_, **__: connect)
    with serving(connector, MODEL, OPTIONS):
        deployed = tmp_path / "keys"
        yield deployed, opened


def assert_right(outputs, x):
    wanted = clear(MODEL, x)[:, :, 0, 0]
    np.testing.assert_allclose(outputs, wanted, rtol=0, atol=0.005 * np.abs(wanted).max())


@pytest.mark.parametrize("batch", [1, 3])
def test_many_images_in_their_order(deployment, batch):
    path, opened = deployment
    x = images(8)
    with threepc.Client(path, in_flight=2) as client:
        outputs = list(client.map(iter(x), batch=batch))
        assert_right(np.array(outputs), x)
        assert client.report["images"] <= batch and 1 <= len(opened) <= 2
    assert all(session.has_ended for session in opened)
    assert_right(np.array(list(threepc.Client(path).map(x, in_flight=1, batch=batch))), x)
    assert opened[-1].has_ended


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_a_bad_image_is_raised_at_its_place_and_leaves_the_rest_usable(deployment, batch):
    path, _ = deployment
    x = images(6)
    x[1, 0, 0, 0] = np.nan
    given = [*x[:3], x[3, :, :5], "no such file.png", *x[4:]]
    answers, errors = [], []
    with threepc.Client(path) as client:
        results = client.map(given, in_flight=2, batch=batch)
        while True:
            try:
                answers.append(next(results))
            except InputError as error:
                errors.append((len(answers), str(error)))
            except StopIteration:
                break
    assert_right(np.array(answers), x[[0, 2, 3, 4, 5]][[0, 1, 3, 4]])
    assert [place for place, _ in errors] == [1, 2, 2]
    assert "no such file" in errors[2][1] and "of shape (1, 3, 5, 9)" in errors[1][1]


def test_a_lost_inference_is_raised_at_its_place(deployment, monkeypatch):
    path, opened = deployment
    serve, failing = inference.serve, [False, True]

    def serve_or_fail(*arguments):
        if failing and failing.pop(0):
            raise RunError("gone", "refused")
        serve(*arguments)

    monkeypatch.setattr(inference, "serve", serve_or_fail)
    x = images(4)
    with threepc.Client(path) as client:
        results = client.map(x, in_flight=1)
        first = next(results)
        with pytest.raises(RunError, match="gone"):
            next(results)
        assert_right(np.array([first, *results]), x[[0, 2, 3]])
    assert len(opened) == 2


def test_an_iterator_that_is_closed_asks_for_no_more(deployment):
    path, opened = deployment
    taken = []

    def source():
        for image in images(50):
            taken.append(image)
            yield image

    results = threepc.Client(path).map(source(), in_flight=2)
    assert_right(np.array([next(results)]), images(50)[:1])
    results.close()
    assert len(taken) <= 5 and all(session.has_ended for session in opened)
    with pytest.raises(StopIteration):
        next(results)


def test_what_still_runs_when_an_iterator_is_closed_opens_no_session(deployment, monkeypatch):
    """Such a session would stay: nobody is left who would end it. Threads are held before they look for one, and after their answer."""
    path, opened = deployment
    late, closed, answers = [], threading.Event(), []
    answer = threepc.Client._answer_each

    def held_back(client, images):
        if answers:
            late.append(threading.current_thread())
            assert closed.wait(60)
        answers.append(answer(client, images))
        return answers[-1]

    monkeypatch.setattr(threepc.Client, "_answer_each", held_back)
    client = threepc.Client(path)
    results = client.map(images(6), in_flight=1)
    assert_right(np.array([next(results)]), images(6)[:1])
    while not late:
        time.sleep(0.005)
    results.close()
    assert client._pool is None
    closed.set()
    for thread in late:
        thread.join(60)
    assert len(opened) == 1 and opened[0].has_ended and client._pool is None
    assert [str(error) for error in answers[1]] == ["this client was closed"]


def test_sessions_that_open_while_the_client_is_closed_are_ended(deployment, monkeypatch):
    path, opened = deployment
    client = threepc.Client(path)
    connect = three_hosts.sessions_of(None)

    def and_nobody_waits(tell):
        session = connect(tell)
        client._users = 0
        return session

    monkeypatch.setattr(three_hosts, "sessions_of", lambda *_, **__: and_nobody_waits)
    client._users = 1
    with pytest.raises(RunError, match="this client was closed"):
        client._open()
    assert opened[0].has_ended and client._pool is None


def test_predictions_are_awaited_and_those_that_wait_are_asked_for_together(deployment):
    path, opened = deployment
    x = images(9)

    async def ask():
        with threepc.Client(path, in_flight=2, batch=4, patience=0.2) as client:
            return await asyncio.gather(*(client.predict_async(image[None]) for image in x)), client.report

    outputs, report = asyncio.run(ask())
    assert_right(np.concatenate(outputs), x)
    assert 1 <= len(opened) <= 2 and report["images"] <= 4
    assert sum(session._attempt for session in opened) < 9


def test_an_awaited_prediction_opens_and_ends_a_session_of_its_own(deployment):
    path, opened = deployment
    assert_right(asyncio.run(threepc.Client(path).predict_async(images())), images())
    assert [session.has_ended for session in opened] == [True]


@pytest.mark.parametrize("arguments", [{"in_flight": 0}, {"in_flight": 33}, {"batch": 0}, {"batch": 1025}, {"patience": -1}])
def test_numbers_out_of_range(deployment, arguments):
    with pytest.raises(InputError, match="in_flight is from 1 to 32, batch from 1 to 1024"):
        threepc.Client(deployment[0], **arguments)
    with threepc.Client(deployment[0]) as client, pytest.raises(InputError, match="in_flight is from 1 to 4"):
        client.map([], in_flight=5)


def test_what_was_prepared_is_used_and_replaced(tmp_path, monkeypatch):
    generate(tmp_path / "keys")
    connector, opened = MemoryConnector(), []

    def sessions_of(*_, ahead, batch, **__):
        numbers = iter(ahead)

        def connect(_):
            opened.append(ClientSession(connector, dataclasses.replace(OPTIONS, ahead=next(numbers), batch=batch)))
            return opened[-1]

        return connect

    monkeypatch.setattr(three_hosts, "sessions_of", sessions_of)
    x = images(5)
    with serving(connector, MODEL, OPTIONS), threepc.Client(tmp_path / "keys", in_flight=2, batch=2, precompute=3) as client:
        client.prepare()
        assert [session.ready for session in opened] == [2, 1]
        assert_right(client.predict(x[:2]), x[:2])
        assert client.report["precomputed"] == 1 and client.report["seconds"]["total"] >= client.report["seconds"]["online"]
        assert_right(client.predict(x), x)
        assert_right(np.array(list(client.map(x, batch=2))), x)
        client.prepare()
        assert [session.ready for session in opened] == [2, 1]
    with pytest.raises(InputError, match="precompute is from 0 to 1024"):
        threepc.Client(tmp_path / "keys", precompute=1025)


def test_predictions_that_wait_as_the_client_is_closed_end_with_its_error(deployment, monkeypatch):
    path, _ = deployment
    begun, go_on = threading.Event(), threading.Event()

    def hold(*_):
        begun.set()
        assert go_on.wait(60)
        raise RunError("held")

    monkeypatch.setattr(threepc.Client, "predict", hold)

    async def ask():
        client = threepc.Client(path, in_flight=1)
        asked = [asyncio.create_task(client.predict_async(images())) for _ in range(2)]
        await asyncio.to_thread(begun.wait, 20)
        client.close()
        go_on.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    assert list(map(repr, asyncio.run(ask()))) == ["RunError('held')", "RunError('this client was closed')"]
