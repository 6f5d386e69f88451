"""Sessions between three parties: that they run, and that whatever goes wrong ends them everywhere, with a reason."""

import dataclasses
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from tests.party.parties import Stranger, assert_close, images, serving, small_model
from threepc.choices import RINGS
from threepc.errors import InputError, RunError
from threepc.party import server
from threepc.party.client import ClientSession
from threepc.party.connector import MemoryConnector
from threepc.party.memory import MAX_BATCH
from threepc.party.one_host import ThreeThreads, open_parties
from threepc.party.record import merged, report
from threepc.party.session import Options, open_channel
from threepc.prf import new_key

MODEL = small_model()
OPTIONS = Options(timeout=60.0)
SHORT = Options(timeout=0.3)


@pytest.fixture
def connector():
    return MemoryConnector()


@pytest.mark.parametrize("bits", RINGS)
def test_three_threads(bits):
    model = small_model(bits=bits)
    with ThreeThreads(model) as parties:
        assert_close(model, images(), parties.infer(images())[0], tolerance=0.005 if bits > 40 else 0.02)


def test_several_inferences_of_several_sizes_in_one_session(connector):
    with serving(connector, MODEL, OPTIONS), ClientSession(connector, OPTIONS) as session:
        for count in (1, 4, 1, 3):
            x = images(count, seed=count)
            assert_close(MODEL, x, session.infer(x)[0])


def test_same_image_twice_gives_other_messages_and_the_same_logits(connector):
    with serving(connector, MODEL, OPTIONS), ClientSession(connector, OPTIONS) as session:
        one, two = (session.infer(images())[0] for _ in range(2))
        assert np.abs(one - two).max() < 1e-3


TOLD = dataclasses.replace(
    MODEL,
    public=dataclasses.replace(MODEL.public, to_client=tuple(n.name for n in MODEL.public.graph.nodes if n.kind in ("relu", "maxpool"))),
)
"""The same, and the client is told its shares of the planes."""


@pytest.mark.parametrize("model", (MODEL, TOLD), ids=("server told", "client told"))
@pytest.mark.parametrize("separate", (False, True))
def test_record_is_what_the_plan_declares(connector, separate, model):
    plan = model.public.plan(2)
    assert ("provider->client" in plan.cost.offline) == (model is TOLD)
    with serving(connector, model, OPTIONS), ClientSession(connector, OPTIONS) as session:
        for _ in range(2):
            logits, record = session.infer(images(2), separate)
            assert_close(MODEL, images(2), logits)
            for phase, declared in (("offline", plan.cost.offline), ("online", plan.cost.online)):
                assert {link: phases[phase][0] for link, phases in record.links.items() if phase in phases} == declared
            assert sum(phases["online"][1] for phases in record.links.values() if "online" in phases) == plan.cost.messages
            assert [layer["name"] for layer in record.layers] == [step.name for step in plan.steps]
            declared = [step.cost.total("offline") + step.cost.total("online") for step in plan.steps]
            assert [layer["bytes"] for layer in record.layers] == declared
            assert [layer["messages"] for layer in record.layers] == [step.cost.messages for step in plan.steps]
        assert {link: count[0] for link, count in session.setup_links.items()} == plan.cost.setup
        total = merged([record, record])
        assert total.links["provider->server"]["offline"] == [2 * n for n in record.links["provider->server"]["offline"]]
        plain = report(model.public, record, 2, None, session.setup_links, session.setup_seconds)
        assert json.loads(json.dumps(plain))["bytes"]["total"] == plan.cost.total("offline") + plan.cost.total("online")
        assert plain["relus"] == plan.relus and plain["bytes"]["setup"] == plan.cost.total("setup")


def test_two_clients_at_once(connector):
    barrier = threading.Barrier(2)

    def client(seed):
        with ClientSession(connector, OPTIONS) as session:
            barrier.wait(60)
            for i in range(3):
                x = images(1 + i, 10 * seed + i)
                assert_close(MODEL, x, session.infer(x)[0])

    with serving(connector, MODEL, OPTIONS), ThreadPoolExecutor(2) as both:
        assert list(both.map(client, range(2))) == [None, None]


def test_a_client_after_one_that_failed(connector, caplog):
    """The server hears of it at once; the provider, which was told of no client, hears of the server's end."""

    def refuse(model):
        raise RunError("this model is not what I asked for")

    with serving(connector, MODEL, OPTIONS):
        with pytest.raises(RunError, match="not what I asked for"):
            ClientSession(connector, dataclasses.replace(OPTIONS, accept=refuse))
        with ClientSession(connector, OPTIONS) as session:
            assert_close(MODEL, images(), session.infer(images())[0])
    assert "the client ended the session: this model is not what I asked for" in caplog.text


# What is refused before anything is sent


@pytest.mark.parametrize(
    "x, message",
    [
        (np.zeros((1, 3, 9, 8)), "images of shape"),
        (np.zeros((3, 9, 9)), "images of shape"),
        (np.full((1, 3, 9, 9), np.nan), "not a finite number"),
        (np.full((1, 3, 9, 9), np.inf), "not a finite number"),
        (np.full((1, 3, 9, 9), 2.0**14), "does not fit a ring of"),
        (np.full((1, 3, 9, 9), -(2.0**14)), "does not fit a ring of"),
        (np.zeros((0, 3, 9, 9)), "1 to 1024 images"),
        (np.zeros((MAX_BATCH + 1, 3, 9, 9)), "1 to 1024 images"),
    ],
)
def test_bad_images_are_refused_and_the_session_goes_on(connector, x, message):
    with serving(connector, MODEL, OPTIONS), ClientSession(connector, OPTIONS) as session:
        before = session.meter.counts()
        with pytest.raises(InputError, match=message):
            session.infer(x)
        assert session.meter.counts() == before
        assert_close(MODEL, images(), session.infer(images())[0])


def test_a_separate_offline_phase_must_fit_the_budget(connector):
    tight = dataclasses.replace(OPTIONS, budget=1000)
    refused = pytest.raises(InputError, match="needs a budget")
    with serving(connector, MODEL, tight), ClientSession(connector, tight) as session, refused:
        session.infer(images(), separate=True)


def test_weights_that_do_not_fit_the_ring_are_refused_by_name():
    model = small_model(bits=32)
    model.weights["conv1"]["weight"][0, 0, 0, 0] = 2.0**20
    with pytest.raises(InputError, match="the weights of conv1"):
        open_parties(model, "memory")


def test_a_simulated_network_needs_processes():
    with pytest.raises(InputError, match="needs processes"):
        open_parties(MODEL, "memory", network="wan")
    with pytest.raises(InputError, match="links: a simulated network needs processes"):
        open_parties(MODEL, "memory", links="server=1G")
    with pytest.raises(InputError, match="links: 'server' is not"):
        open_parties(MODEL, "ipc", links="server")


def test_a_client_that_is_told_its_shares_paces_the_provider(connector):
    """Several inferences with a budget of a message: what is used is granted again."""
    tight = dataclasses.replace(OPTIONS, budget=1)
    with serving(connector, TOLD, tight), ClientSession(connector, tight) as session:
        for count in (8, 1, 8):
            assert_close(TOLD, images(count), session.infer(images(count))[0])


def test_several_inferences_ahead_of_which_the_client_is_told_its_shares(connector):
    """What comes for one attempt is read before the next one's, whoever has asked for it by then."""
    ahead = dataclasses.replace(OPTIONS, ahead=3, batch=2)
    with serving(connector, TOLD, OPTIONS), ClientSession(connector, ahead) as session:
        session.prepare_ahead(wait=True)
        for count in (2, 1, 2, 2):
            logits, record = session.infer(images(count, seed=count))
            assert_close(TOLD, images(count, seed=count), logits)
            sizes = {link: phases["offline"][0] for link, phases in record.links.items() if "offline" in phases}
            assert sizes == TOLD.public.plan(2).cost.offline
            session.prepare_ahead()


def test_hosts_of_given_rates_answer_as_others_do_and_ahead_too():
    with open_parties(MODEL, "ipc", links="each=1G", ahead=1) as parties:
        for precomputed in (0, 1):
            logits, record = parties.infer(images(1))
            assert_close(MODEL, images(1), logits)
            assert record.precomputed == precomputed
            parties.prepare()


# Who disagrees


def refused(channel, match):
    with pytest.raises(RunError, match=match):
        channel.receive_control("never")


def test_another_fingerprint_ends_all_three(connector, caplog):
    """The provider compares what server and client say; the server hears of it and tells the client's other connection."""
    client = Stranger(connector)
    with serving(connector, MODEL, OPTIONS):
        online = client.greet("server", purpose="online")
        assert online.receive_control("model").fields["graph"] == MODEL.public.graph.to_json()
        provider = client.greet("provider", [client.key], fingerprint="f" * 64)
        offline = client.greet("server", purpose="offline")
        online.send_control("opened", {})
        for channel in (online, offline, provider):
            channel.session = client.session
        refused(provider, "client and server disagree on the model")
        for step in MODEL.public.plan(1).linear:
            offline.receive(step.op, [(np.uint8, (step.protocol.mask_bytes,))])
        refused(offline, "client and server disagree on the model")
        refused(online, "client and server disagree on the model")
    assert caplog.text.count("disagree on the model") == 2


@pytest.mark.parametrize(
    "changes, keys, match",
    [({"version": 99}, 1, "protocol version 99"), ({}, 0, "another number or size of keys"), ({}, 2, "another number or size of keys")],
)
def test_greetings_that_the_provider_refuses(connector, changes, keys, match):
    client = Stranger(connector)
    with serving(connector, MODEL, OPTIONS):
        online = client.greet("server", purpose="online")
        online.receive_control("model")
        provider = client.greet("provider", [new_key()] * keys, **{"fingerprint": MODEL.public.fingerprint} | changes)
        refused(provider, match)
        online.abort("the provider refuses me")
        online.close()


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"role": "judge"}, "unknown role"),
        ({"role": 3}, "without a proper 'role'"),
        ({"session": "xy"}, "proper session identifier"),
        ({"session": "00"}, "proper session identifier"),
    ],
)
def test_greetings_that_the_provider_does_not_understand(connector, changes, match):
    with serving(connector, None, OPTIONS):
        refused(Stranger(connector).greet("provider", **changes), match)


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"purpose": "gossip"}, "unknown purpose"),
        ({"purpose": None}, "without a proper 'purpose'"),
        ({"purpose": "offline"}, "for a session that is not open$"),
        ({"purpose": "online", "version": 0}, "protocol version 0"),
    ],
)
def test_greetings_that_the_server_does_not_understand(connector, changes, match):
    with serving(connector, MODEL, OPTIONS):
        refused(Stranger(connector).greet("server", **changes), match)


def test_a_session_is_joined_once(connector):
    """Neither a second online connection at the server nor a second client at the provider may take its name."""
    client = Stranger(connector)
    with serving(connector, MODEL, OPTIONS, provider=False), serving(connector, None, SHORT):  # it is the provider that gives up
        online = client.greet("server", purpose="online")
        online.receive_control("model")
        refused(client.greet("server", purpose="online"), "in use")
        online.close()
        other = Stranger(connector)
        first = other.greet("provider", [other.key])
        # either may be the first to be heard
        second = other.greet("provider", [other.key])
        for channel in (first, second):
            refused(channel, "a second client|the server did not reach the provider")


class Keyed(MemoryConnector):
    """Connections are of proven keys, as over CURVE: those to a role of the key that is given for it."""

    def __init__(self, **keys):
        super().__init__()
        self.keys = keys

    def connect(self, role, tell=None):
        mine = super().connect(role)
        mine._other.peer = self.keys.get(role)
        return mine

    def is_known(self, role, peer):
        return True


@pytest.mark.parametrize("at_provider, is_same", [(b"A" * 40, True), (b"B" * 40, False), (None, False)])
def test_server_and_provider_have_the_same_client(at_provider, is_same):
    """The key of the client is what the server sees, and the provider compares it with what it sees itself."""
    connector = Keyed(server=b"A" * 40, provider=at_provider)
    with serving(connector, MODEL, OPTIONS):
        if is_same:
            ClientSession(connector, OPTIONS).close()
        else:
            with pytest.raises(RunError, match="the client that reached the server has another key than the one that reached the provider"):
                ClientSession(connector, OPTIONS)


class Tampering(MemoryConnector):
    """Changes control messages of one kind that the client sends."""

    def __init__(self, kind, **fields):
        super().__init__()
        self.kind, self.fields = kind, fields

    def session(self):
        session = ClientSession(self, OPTIONS)
        for channel in session._channels:
            channel.send_control = partial(self.tamper, channel.send_control)
        return session

    def tamper(self, send, kind, fields):
        send(kind, fields | self.fields if kind == self.kind else fields)


@pytest.mark.parametrize("kind", ("infer", "deal"))
@pytest.mark.parametrize(
    "fields, match",
    [
        ({"batch": 0}, "takes 1 to 1024 images at once, not 0"),
        ({"batch": MAX_BATCH + 1}, "takes 1 to 1024 images at once, not 1025"),
        ({"batch": -1}, "without a proper 'batch'"),
        ({"batch": 1.5}, "without a proper 'batch'"),
        ({"batch": None}, "without a proper 'batch'"),
        ({"attempt": "x"}, "without a proper 'attempt'"),
        ({"batch": 2}, r"expected op [02] of attempt 0 of uint8.*, but the (client|provider) at memory sent uint8"),
        ({"attempt": 5}, r"sent attempt \d where it should be \d$"),
        ({"attempt": 1 << 32}, "attempt 4294967296 was refused: a session has attempts 0 to 2.32 - 1"),
    ],
)
def test_requests_that_disagree_end_the_session_everywhere(kind, fields, match, caplog):
    connector = Tampering(kind, **fields)
    with serving(connector, MODEL, OPTIONS):
        session = connector.session()
        with pytest.raises(RunError, match=match):
            session.infer(images())
        with pytest.raises(RunError):
            session.infer(images())


@pytest.mark.parametrize("kind", ("infer", "deal"))
def test_an_attempt_that_was_is_refused(kind):
    connector = Tampering(kind, attempt=0)
    with serving(connector, MODEL, OPTIONS):
        session = connector.session()
        session.infer(images())
        with pytest.raises(RunError, match="attempt 0 was refused: attempts only increase"):
            session.infer(images())


# Who is missing


def test_no_server(connector, monkeypatch):
    """Whoever serves says at least every WAITING_S that a client has to wait: three times as long without a word, and it gives up."""
    monkeypatch.setattr("threepc.party.client.WAITING_S", 0.2)
    with serving(connector, None, OPTIONS), pytest.raises(RunError, match=r"the server at memory has not answered for 0\.6 s"):
        ClientSession(connector, SHORT)


def test_no_provider(connector, caplog, monkeypatch):
    monkeypatch.setattr(
        server, "open_channel", lambda *what: open_channel(*what[:3], SHORT, what[4])
    )  # which it has for the provider alone
    with serving(connector, MODEL, OPTIONS, provider=False), pytest.raises(RunError, match="the provider at memory has not answered"):
        ClientSession(connector, OPTIONS)  # which waits longer: it is the server that gives up
    assert "has not answered" in caplog.text


def test_no_client_at_the_provider(connector, caplog):
    """A client that talks to the server alone: the provider waits for it only so long, and says why it ends."""
    client = Stranger(connector)
    with serving(connector, MODEL, OPTIONS, provider=False), serving(connector, None, SHORT):  # it is the provider that gives up
        online = client.greet("server", purpose="online")
        online.receive_control("model")
        client.greet("server", purpose="offline")
        online.send_control("opened", {})
        refused(online, "did not reach the provider|has not answered")
    assert "the client did not reach the provider within 0.3 s" in caplog.text


def test_a_client_without_its_second_connection(connector):
    with serving(connector, MODEL, SHORT):
        for says_so, match in ((False, "has not answered"), (True, "did not open its offline connection within 0.3 s")):
            online = Stranger(connector).greet("server", purpose="online")
            if says_so:  # at once: the server does not wait for it long
                online.send_control("opened", {})
            online.receive_control("model")
            refused(online, match)
