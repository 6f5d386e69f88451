"""Inferences prepared before their images are there: the same bytes, each used once, within every party's budget."""

import dataclasses
import threading

import pytest

from tests.party.parties import Stranger, assert_close, images, serving, small_model, told_model
from threepc.errors import InputError, RunError
from threepc.party import inference, pacing
from threepc.party.client import ClientSession
from threepc.party.connector import MemoryConnector, ZmqConnector
from threepc.party.pool import SessionPool, in_order, shares
from threepc.party.provider import ProviderParty
from threepc.party.queries import Limits, QueryCounts
from threepc.party.server import ServerParty
from threepc.party.session import MOST_AHEAD, Options, check_ahead
from threepc.prf import Keystream
from threepc.protocol.roles import Server

MODEL = small_model()
PLAN = MODEL.public.plan(1)
OPTIONS = Options(timeout=60.0)
LARGEST = max(PLAN.cost.offline.values())


def ahead(count: int, batch: int = 1, **others) -> Options:
    return dataclasses.replace(OPTIONS, ahead=count, batch=batch, **others)


def sizes(record):
    """Payload by link and phase, and bytes and messages by layer."""
    return record.links, [(layer["name"], layer["bytes"], layer["messages"]) for layer in record.layers]


def test_the_same_bytes_travel_and_each_phase_is_used_once():
    connector = MemoryConnector()
    with serving(connector, MODEL, OPTIONS) as (server, provider):
        with ClientSession(connector, OPTIONS) as session:
            plain = session.infer(images())[1]
        assert plain.precomputed == 0
        dealt = provider.observation.counts().inferences
        with ClientSession(connector, ahead(3)) as session:
            session.prepare_ahead(wait=True)
            assert session.ready == 3 and session._attempt == 3
            assert provider.observation.counts().inferences == dealt + 3 and server.observation.counts().inferences == 1
            waiting = list(session._ready)
            assert len({id(each.role.kept) for each in waiting}) == 3
            for seed in range(5):
                decoded, record = session.infer(images(1, seed))
                assert_close(MODEL, images(1, seed), decoded)
                assert sizes(record) == sizes(plain)
                assert record.precomputed == (seed < 3) and record.seconds["total"] >= record.seconds["online"]
            assert session._attempt == 5 and session.ready == 0
            session.prepare_ahead()
            assert [each.role.attempt for each in session._ready] == [5, 6, 7]
    assert server.observation.counts().inferences == 6


def test_every_stream_of_an_attempt_is_begun_once_at_every_party(monkeypatch):
    """What is dealt ahead and never used is never drawn again either: the next session has other keys."""
    connector, begun = MemoryConnector(), []
    original = Server.__init__

    def noting(self, attempt, *arguments):
        begun.append(attempt)
        original(self, attempt, *arguments)

    with serving(connector, MODEL, OPTIONS):
        with ClientSession(connector, ahead(2)) as session:
            session.prepare_ahead(wait=True)
            monkeypatch.setattr(Server, "__init__", noting)
            for seed in range(3):
                session.infer(images(1, seed))
                session.prepare_ahead()
            first = session._stream
            assert begun == [0, 1, 2] and first.last_attempt == 4
            with pytest.raises(RunError, match="attempts only increase and 4 was begun before"):
                first.begin_attempt(4)
        with pytest.raises(RunError, match="erased"):
            first.stream(4, 1, 1)
        with ClientSession(connector, ahead(2)) as session:
            assert session.ready == 0 and session._stream is not first


def test_an_attempt_that_is_over_is_closed_at_every_party(monkeypatch):
    """Nothing is drawn for it any more, whatever comes; and a session of many inferences does not remember all of their addresses."""
    connector, ended, end = MemoryConnector(), [], Keystream.end_attempt

    def noting(stream, attempt):
        ended.append((id(stream), attempt))
        end(stream, attempt)

    monkeypatch.setattr(Keystream, "end_attempt", noting)
    with serving(connector, MODEL, OPTIONS), ClientSession(connector, OPTIONS) as session:
        for seed in range(2):
            session.infer(images(1, seed))
    for attempt in range(2):
        assert len({stream for stream, of in ended if of == attempt}) == len([of for _, of in ended if of == attempt]) == 4, (
            "the ends of two keys"
        )


def test_what_was_prepared_goes_with_a_session_that_fails(monkeypatch):
    connector, serve, failing = MemoryConnector(), inference.serve, []

    def serve_or_fail(*arguments):
        if failing:
            raise failing.pop()
        serve(*arguments)

    with serving(connector, MODEL, OPTIONS):
        monkeypatch.setattr(inference, "serve", serve_or_fail)
        with SessionPool(lambda _: ClientSession(connector, ahead(2)), retries=1) as pool:
            pool.prepare()
            before = pool.first
            used = before._ready[0]
            failing.append(RunError("gone", "lost"))
            assert_close(MODEL, images(), pool.infer(images())[0])
            assert pool.first is not before and before.ready == 0 and used not in pool.first._ready
            assert pool.first._attempt >= 1 and before._stream is not pool.first._stream
            with pytest.raises(RunError, match="this session is over"):
                before.prepare_ahead()


@pytest.mark.parametrize(
    "model",
    (MODEL, dataclasses.replace(MODEL, public=dataclasses.replace(MODEL.public, to_client=("relu2",)))),
    ids=("server told", "client told"),
)
def test_what_is_prepared_goes_on_when_the_provider_has_gone(model, tmp_path):
    """All that it dealt has arrived; more it deals to nobody."""
    tmp_path.chmod(0o700)
    connector = ZmqConnector({role: f"ipc://{tmp_path}/{role}" for role in ("server", "provider")})
    server, provider = ServerParty(model, connector, OPTIONS), ProviderParty(connector, OPTIONS)
    threads = [threading.Thread(target=party.serve) for party in (server, provider)]
    for thread in threads:
        thread.start()
    try:
        with ClientSession(connector, ahead(3)) as session:
            session.prepare_ahead(wait=True)
            provider.stop()
            while not session._provider.connection.has_ended:
                session._provider.connection.collect()
            for left in (2, 1, 0):
                logits, record = session.infer(images(1, left))
                assert_close(MODEL, images(1, left), logits)
                assert session.ready == left and record.precomputed and not record.incomplete
                if left:
                    session.prepare_ahead()
            with pytest.raises(RunError, match=r"the provider at .* closed the connection"):
                session.infer(images())
    finally:
        for party in (server, provider):
            party.stop()
        for thread in threads:
            thread.join()


def test_fewer_images_than_were_prepared_for_are_filled_up_and_count(tmp_path):
    connector = MemoryConnector()
    with serving(connector, MODEL, OPTIONS) as (server, _):
        server.queries = QueryCounts(tmp_path / "queries.json", Limits(default=7))
        with ClientSession(connector, ahead(1, 3)) as session:
            assert session.largest_batch == 3
            session.prepare_ahead(wait=True)
            for count in (2, 3):
                decoded, record = session.infer(images(count))
                assert_close(MODEL, images(count), decoded)
            with pytest.raises(InputError, match=r"prepares inferences of 3 image\(s\): ask for so many at most, not for 4"):
                session.infer(images(4))
            with pytest.raises(RunError, match="has used 6 of its 7 images"):
                session.infer(images(1))


@pytest.mark.parametrize("whose", ["client", "server", "provider"])
def test_more_than_a_budget_holds_is_refused_by_name_before_anything_is_dealt(whose):
    connector = MemoryConnector()
    link = {"client": "client->server", "provider": "provider->server"}
    size = PLAN.cost.offline[link[whose]] if whose in link else LARGEST
    small = dataclasses.replace(OPTIONS, budget=2 * size)
    server_options, provider_options = (small if whose == role else OPTIONS for role in ("server", "provider"))
    with serving(connector, MODEL, server_options, provider=False) as (server,), serving(connector, None, provider_options):
        asking = ahead(3, budget=small.budget if whose == "client" else OPTIONS.budget)
        with pytest.raises((InputError, RunError), match=f"3 inference.* ahead take .* but the {whose} holds .*: prepare at most 2 ahead"):
            ClientSession(connector, asking)
        assert server.observation.counts().sessions == 0
        with ClientSession(connector, dataclasses.replace(asking, ahead=2)) as session:
            session.prepare_ahead(wait=True)
            assert_close(MODEL, images(), session.infer(images())[0])


def test_however_large_the_budget_the_clients_memory_and_a_number_are_limits():
    plenty, memory = dataclasses.replace(OPTIONS, budget=1 << 60), PLAN.held_bytes
    assert memory // PLAN.kept_bytes < MOST_AHEAD
    for role, options, most in (
        ("client", dataclasses.replace(plenty, memory=memory), memory // PLAN.kept_bytes),
        ("server", plenty, MOST_AHEAD),
        ("provider", plenty, MOST_AHEAD),
    ):
        check_ahead(MODEL.public, dataclasses.replace(options, ahead=most), role)
        with pytest.raises(InputError, match=f"prepare at most {most} ahead"):
            check_ahead(MODEL.public, dataclasses.replace(options, ahead=most + 1), role)


@pytest.mark.parametrize(
    "asked",
    [
        {"ahead": MOST_AHEAD + 1},
        {"ahead": 1 << 62},
        {"ahead": -1},
        {"ahead": "3"},
        {"ahead": True},
        {"ahead": 1.0},
        {"ahead": 1, "batch": 0},
        {"ahead": 1, "batch": 1 << 40},
        {"ahead": 1, "batch": None},
        {"ahead": 1, "batch": [1]},
    ],
)
def test_numbers_that_are_none_are_refused_by_the_server(asked):
    connector = MemoryConnector()
    with serving(connector, MODEL, OPTIONS) as (server, provider):
        stranger = Stranger(connector)
        online = stranger.greet("server", purpose="online", **asked)
        with pytest.raises(RunError, match="the server ended the session: "):
            online.receive_control("model")
        assert server.observation.counts().failures["refused"] == 1 and provider.observation.counts().sessions == 0
        online.close()


def test_the_provider_looks_for_itself():
    connector = MemoryConnector()
    with serving(connector, MODEL, OPTIONS) as (_, provider):
        stranger = Stranger(connector)
        online = stranger.greet("server", purpose="online")
        model = told_model(online)
        dealing = stranger.greet("provider", [stranger.key], fingerprint=model.fingerprint, ahead=1 << 40, batch=1)
        with pytest.raises(RunError, match=r"the provider ended the session: 1099511627776 inference\(s\)"):
            dealing.receive_control("ready")
        assert provider.observation.counts().sessions == 0
        for channel in (online, dealing):
            channel.close()


def test_who_has_more_dealt_than_was_said_waits_for_credit(monkeypatch):
    """A client may be anybody's program: what it has dealt without using it ends at the provider's budget, where that is more than a grant."""
    monkeypatch.setattr(pacing, "GRANT", 1 << 16)
    connector = MemoryConnector()
    pace = pacing.PacedSender.__init__

    def pace_and_wait_a_moment(self, channel, budget):
        pace(self, channel, budget)
        channel.timeout = 0.5

    monkeypatch.setattr(pacing.PacedSender, "__init__", pace_and_wait_a_moment)
    with serving(connector, MODEL, dataclasses.replace(OPTIONS, budget=2 * LARGEST)) as (_, provider):
        session = ClientSession(connector, OPTIONS)
        for attempt in range(8):
            session._provider.send_control("deal", {"attempt": attempt, "batch": 1})
        with pytest.raises(RunError):
            list(iter(lambda: session._provider.receive_control("dealt"), None))
        assert provider.observation.counts().inferences < 8
        session.close()


def test_in_flight_and_prepared_no_more_than_will_be_asked_for():
    connector, opened = MemoryConnector(), []
    numbers = iter(shares(5, 2))

    def connect(_):
        opened.append(ClientSession(connector, ahead(next(numbers))))
        return opened[-1]

    batches = [images(1, seed) for seed in range(7)]
    with serving(connector, MODEL, OPTIONS), SessionPool(connect, 2) as pool:
        pool.expect(7)
        pool.prepare()
        assert [session.ready for session in opened] == [3, 2]
        for batch, (decoded, _) in zip(batches, in_order(pool.infer, batches, 2), strict=True):
            assert_close(MODEL, batch, decoded)
        left = sum(session.ready for session in opened)
        assert (
            sum(session._attempt for session in opened) == 7 + left and left <= 1
        )  # of a session that was busy when the last one was asked for


def test_parts_of_a_number():
    for total in range(9):
        for sessions in range(1, 5):
            numbers = iter(shares(total, sessions))
            assert sum(next(numbers) for _ in range(sessions)) == total
            assert next(numbers) == -(-total // sessions)


def test_a_failure_of_the_offline_phase_is_told_where_its_inference_is_asked_for(monkeypatch):
    connector = MemoryConnector()
    with serving(connector, MODEL, OPTIONS), ClientSession(connector, ahead(2)) as session:

        def fail(*_):
            raise RunError("it broke", "lost")

        monkeypatch.setattr(inference, "prepare", fail)
        session.prepare_ahead()
        with pytest.raises(RunError):
            session.infer(images())
        assert session.has_ended and session.ready == 0


def test_a_phase_that_begins_as_the_session_is_closed_fails_and_is_not_waited_for_for_ever(monkeypatch):
    connector = MemoryConnector()
    with serving(connector, MODEL, OPTIONS), ClientSession(connector, OPTIONS) as session:
        begin = session._preparing.begin

        def begin_late(ahead):
            session.close()
            return begin(ahead)

        monkeypatch.setattr(session._preparing, "begin", begin_late)
        with pytest.raises(RunError, match="this session was closed"):
            session.infer(images())
