"""Keys of real sessions: fresh, apart, erased; and what connections of one session must prove to be one client's."""

import sys
import threading
from collections import defaultdict

import numpy as np
import pytest

from tests.graph.building import Builder
from tests.party.parties import CARD, Stranger, images, serving, small_model, told_model
from threepc.errors import RunError
from threepc.model.served import PublicModel, ServedModel
from threepc.party.client import ClientSession
from threepc.party.connector import MemoryConnector, ZmqConnector
from threepc.party.offered import OfferedModel
from threepc.party.provider import ProviderParty
from threepc.party.server import ServerParty
from threepc.party.session import Options
from threepc.plan.precision import Precision
from threepc.prf import Keystream, new_key
from threepc.transport.keys import KeyPair

MODEL = small_model()
OPTIONS = Options(timeout=60.0)


@pytest.fixture
def opened(monkeypatch):
    """Every keystream that a party makes, with its key, by the party's module."""
    made, original = defaultdict(list), Keystream.__init__

    def record(self, key):
        original(self, key)
        module = sys._getframe(1).f_globals["__name__"].removeprefix("threepc.party.")
        made[module].append((self, bytes(key)))

    monkeypatch.setattr(Keystream, "__init__", record)
    return made


def of_one_session(opened, options=OPTIONS):
    """(k_CP, k_SP, the weights' key) of a session with a server and a provider of its own."""
    opened.clear()
    connector = MemoryConnector()
    with serving(connector, MODEL, options), ClientSession(connector, options) as session:
        session.infer(images())
    keys = {module: [key for _, key in streams] for module, streams in opened.items()}
    (client,), (weight,), (server,) = keys["client"], keys["offered"], keys["server"]
    assert sorted(keys["provider"]) == sorted([client, server, weight]), "the provider shares one key with each, and knows the weights'"
    return client, server, weight


def test_sessions_and_servers_share_no_key(opened):
    keys = [key for _ in range(3) for key in of_one_session(opened)]
    assert len(set(keys)) == 9
    assert all(len(key) == 16 and len(set(key)) > 4 for key in keys), "no constant among them"


def test_sessions_of_one_server_share_the_weights_key_alone(opened):
    connector = MemoryConnector()
    with serving(connector, MODEL, OPTIONS):
        for _ in range(2):
            with ClientSession(connector, OPTIONS) as session:
                session.infer(images())
    one, two = (key for _, key in opened["client"])
    (weight,) = (key for _, key in opened["offered"])
    first, second = (key for _, key in opened["server"])
    assert len({one, two, weight, first, second}) == 5


def test_keys_are_erased_when_a_session_ends(opened):
    of_one_session(opened)
    for module, streams in opened.items():
        for stream, _ in streams:
            assert stream._algorithm is None and not any(stream._key) and not stream._round_keys.any(), module
            with pytest.raises(RunError, match="has been erased"):
                stream.stream(0, 0, 1)


def test_keys_are_erased_when_a_session_fails(opened):
    connector = MemoryConnector()
    with serving(connector, MODEL, OPTIONS):
        session = ClientSession(connector, OPTIONS)
        session.infer(images())
        session._online.close()
        with pytest.raises(RunError):
            session.infer(images())
    assert {"client", "server", "provider"} <= set(opened)
    assert all(stream._algorithm is None for streams in opened.values() for stream, _ in streams)


def test_equal_layers_travel_under_different_masks():
    """Two convolutions with the same weights: their masked weights differ, in one server and between two."""
    net = Builder(3, 6, 6)
    graph, weights = net.output(net.relu(net.conv(net.relu(net.conv("input", 3)), 3)))
    first, second = (node.name for node in graph.nodes if node.kind == "conv")
    weights[second] = {key: value.copy() for key, value in weights[first].items()}
    model = ServedModel(PublicModel(graph, Precision(), None, CARD), weights)
    messages = [message.tobytes() for offered in (OfferedModel(model), OfferedModel(model)) for message in offered.masked.values()]
    assert len(messages) == 4
    assert len(set(messages)) == 4
    blocks = np.concatenate([np.frombuffer(m[: len(m) // 16 * 16], "V16") for m in messages])
    assert len(np.unique(blocks)) == len(blocks)


# What a session's connections must be


@pytest.mark.parametrize("party", ("server", "provider"))
def test_an_attempt_runs_once_at_each_party(party):
    """A client that asks for the same attempt again is refused by whoever would draw again."""
    connector = MemoryConnector()
    with serving(connector, MODEL, OPTIONS):
        session = ClientSession(connector, OPTIONS)
        session.infer(images())
        channel, kind = (session._online, "infer") if party == "server" else (session._provider, "deal")
        channel.send_control(kind, {"attempt": 0, "batch": 1})
        with pytest.raises(RunError, match="attempts only increase"):
            channel.receive_control("done", "dealt")
        with pytest.raises(RunError):
            session.infer(images())


@pytest.fixture
def curve():
    """Connectors over CURVE by party; two clients are listed."""
    keys = {name: KeyPair.new() for name in ("server", "provider", "client", "other")}
    public = {name: keys[name].public for name in ("server", "provider")}
    clients = keys["client"].public, keys["other"].public
    listed = {"server": clients, "provider": (public["server"], *clients), "client": (), "other": ()}
    addresses = dict.fromkeys(public, "tcp://127.0.0.1:0")
    made = {}
    for name in ("provider", "server", "client", "other"):
        made[name] = ZmqConnector(dict(addresses), keys[name], public, listed[name], 20.0)
        if name in addresses:
            made[name] = _Listening(made[name], name, addresses)
    return made


class _Listening:
    """A connector that tells the others where it came to listen."""

    def __init__(self, connector, role, addresses):
        self._connector, self._role, self._addresses = connector, role, addresses

    def listen(self, role):
        listener = self._connector.listen(role)
        self._addresses[role] = listener.address
        return listener

    def connect(self, role, tell=None):
        self._connector.addresses[role] = self._addresses[role]
        return self._connector.connect(role)

    def is_known(self, role, peer):
        return self._connector.is_known(role, peer)


@pytest.fixture
def parties(curve):
    """Server and provider over CURVE, as threads; connectors of the two clients."""
    running = [ProviderParty(curve["provider"], OPTIONS), ServerParty(MODEL, curve["server"], OPTIONS)]
    threads = [threading.Thread(target=party.serve) for party in running]
    for thread in threads:
        thread.start()
    for name in ("client", "other"):
        curve[name].addresses.update({party.role: party.address for party in running})
    yield curve
    for party in running:
        party.stop()
    for thread in threads:
        thread.join()


def test_listed_clients_are_served_over_curve(parties):
    for name in ("client", "other"):
        with ClientSession(parties[name], OPTIONS) as session:
            assert session.infer(images())[0].shape == (1, 5, 1, 1)


def test_two_connections_of_two_keys_are_no_session(parties):
    """Somebody else's second connection would receive what was meant for the first one's client."""
    one, two = Stranger(parties["client"]), Stranger(parties["other"])
    two.session = one.session
    online = one.greet("server", purpose="online")
    fingerprint = told_model(online).fingerprint
    provider = one.greet("provider", [new_key()], fingerprint=fingerprint)
    offline = two.greet("server", purpose="offline")
    online.send_control("opened", {})
    with pytest.raises(RunError, match="two different keys"):
        online.receive_control("ready")
    for channel in (online, offline, provider):
        channel.close()


def test_a_client_is_not_the_server_for_the_provider(parties):
    channel = Stranger(parties["client"]).greet("provider", [new_key(), new_key()], role="server", model={})
    with pytest.raises(RunError, match="its key is not that of a server"):
        channel.receive_control("ready")
    channel.close()


def test_the_server_is_no_client(parties):
    """Neither for the provider, which knows its key, nor at its own door, where only clients' keys open."""
    as_server = parties["server"]
    channel = Stranger(as_server).greet("provider", [new_key()], role="client", fingerprint="")
    with pytest.raises(RunError, match="its key is not that of a client"):
        channel.receive_control("ready")
    channel.close()
    with pytest.raises(RunError):
        as_server.connect("server")


@pytest.mark.parametrize("keys", ([], [b"short"], [bytes(16), bytes(16)], [bytes(17)]))
def test_a_greeting_with_other_keys_is_refused(keys):
    connector = MemoryConnector()
    with serving(connector, MODEL, OPTIONS):
        stranger = Stranger(connector)
        online = stranger.greet("server", purpose="online")
        fingerprint = told_model(online).fingerprint
        provider = stranger.greet("provider", keys, fingerprint=fingerprint)
        with pytest.raises(RunError, match="another number or size of keys"):
            provider.receive_control("ready")
        for channel in (online, provider):
            channel.close()
