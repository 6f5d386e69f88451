"""What is tried again, and what never is."""

import pytest

from tests.party.parties import assert_close, images, serving, small_model
from threepc.errors import KINDS, RunError
from threepc.party import inference, retrying
from threepc.party.client import ClientSession
from threepc.party.connector import MemoryConnector
from threepc.party.retrying import RetryingClient
from threepc.party.session import Options
from threepc.transport import memory
from threepc.transport.channel import Channel

MODEL = small_model()
OPTIONS = Options(timeout=60.0)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(retrying, "PAUSE_S", 0.01)


@pytest.fixture
def failing(monkeypatch):
    """A list of errors; each one ends an inference at the server instead."""
    errors, serve = [], inference.serve

    def fail_or_serve(*arguments):
        if errors:
            raise errors.pop(0)
        return serve(*arguments)

    monkeypatch.setattr(inference, "serve", fail_or_serve)
    return errors


def client(connector, retries, said):
    return RetryingClient(lambda: ClientSession(connector, OPTIONS), retries, said.append)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_lost_is_asked_for_again_and_what_was_refused_is_not(kind, failing):
    connector, said, passes = MemoryConnector(), [], kind in ("lost", "silent", "stopped")
    with serving(connector, MODEL, OPTIONS) as parties, client(connector, 1, said) as asking:
        first = asking.session
        failing.append(RunError("something happened", kind))
        if passes:
            assert_close(MODEL, images(), asking.infer(images())[0])
            assert asking.session is not first
            assert asking.session._online.session != first._online.session
            assert said == ["the server ended the session: something happened: trying again in a new session, in 0.01 s"]
        else:
            with pytest.raises(RunError, match=r"^the server ended the session: something happened$"):
                asking.infer(images())
            assert said == []
    assert parties[0].observation.counts().images == (1 if passes else 0)


def test_as_often_as_was_said(failing):
    connector, said = MemoryConnector(), []
    with serving(connector, MODEL, OPTIONS), client(connector, 2, said) as asking:
        failing += [RunError("gone", "lost")] * 2
        assert_close(MODEL, images(), asking.infer(images())[0])
        failing += [RunError("gone", "lost")] * 3
        with pytest.raises(RunError, match="gone"):
            asking.infer(images())
    assert len(said) == 4


def test_a_server_that_is_being_stopped_is_asked_again():
    connector, said = MemoryConnector(), []
    with serving(connector, MODEL, OPTIONS) as parties, client(connector, 1, said) as asking:
        parties[0].drain(0)
        with pytest.raises(RunError, match="the server is being stopped") as caught:
            asking.infer(images())
        assert caught.value.may_pass
        assert len(said) == 1


def test_another_model_in_between_is_no_answer():
    connector = MemoryConnector()
    with serving(connector, MODEL, OPTIONS):
        asking = client(connector, 1, [])
        asking.close()
    connector.waiting = MemoryConnector().waiting
    with serving(connector, small_model(channels=5), OPTIONS), pytest.raises(RunError, match="another model than before"):
        asking.infer(images())
    asking.close()


@pytest.mark.parametrize("retries, reopens", [(0, False), (0, True), (1, False)])
def test_a_session_that_ends_behind_its_answer(retries, reopens, monkeypatch):
    """It is begun anew only by who says so; who does not hears what ended it, and waits for nobody."""
    connector, said = MemoryConnector(), []
    with (
        serving(connector, MODEL, OPTIONS) as parties,
        RetryingClient(lambda: ClientSession(connector, OPTIONS), retries, said.append, reopens=reopens) as asking,
    ):
        first = asking.session

        def vanish(*_):
            raise RunError("it went away", "lost")

        with monkeypatch.context() as patch:
            patch.setattr(parties[0].observation, "inferred", vanish)
            logits, record = asking.infer(images())
        assert_close(MODEL, images(), logits)
        assert record.incomplete == "the server ended the session: it went away"
        if retries or reopens:
            assert_close(MODEL, images(), asking.infer(images())[0])
        else:
            with pytest.raises(RunError, match=r"^this session is over: the server ended the session: it went away$"):
                asking.infer(images())
        assert (asking.session is not first) == bool(retries or reopens)
        assert said == []


def test_a_kind_that_is_none_is_a_refusal():
    one, two = (Channel(end, ("server", "client")) for end in memory.pair())
    one.abort("enough", "surely lost")
    with pytest.raises(RunError, match="enough") as caught:
        two.receive_control("never")
    assert (caught.value.kind, caught.value.cause, caught.value.may_pass) == ("ended by peer", "refused", False)
