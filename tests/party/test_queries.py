"""Queries are counted before they are answered, on the disk, once each."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.graph.building import Builder
from tests.party.parties import CARD, assert_close, images, serving, small_model
from threepc.errors import InputError, RunError
from threepc.model.served import PublicModel, ServedModel
from threepc.party import inference, queries, three_hosts
from threepc.party.client import ClientSession
from threepc.party.connector import MemoryConnector
from threepc.party.deployment import load
from threepc.party.keygen import generate
from threepc.party.queries import Limits, QueryCounts, read_used, state_file
from threepc.party.session import Options
from threepc.plan.precision import Precision

MODEL = small_model()
LIMITS = Limits(10, {"alice": 4})


def ask(counts, client, images, model="small@0", fails="", final=False):
    with counts.charged(client, model, images) as charge:
        charge.is_final = final
        if fails:
            raise RunError(fails)


def test_each_client_has_its_budget_for_each_model(tmp_path):
    counts = QueryCounts(tmp_path / "queries.json", LIMITS)
    ask(counts, "alice", 3)
    with pytest.raises(
        RunError, match=r"^alice has used 3 of its 4 images of small@0, and 2 more are too many: ask the server's owner$"
    ) as no:
        ask(counts, "alice", 2)
    assert no.value.kind == "refused"
    ask(counts, "alice", 1)
    ask(counts, "alice", 4, "other@1")
    ask(counts, "bob", 10)
    assert read_used(tmp_path / "queries.json") == {"alice": {"small@0": 4, "other@1": 4}, "bob": {"small@0": 10}}


def test_counts_outlive_the_server(tmp_path):
    for count in (1, 2):
        ask(QueryCounts(tmp_path / "queries.json", LIMITS), "alice", count)
    with pytest.raises(RunError, match="has used 3 of its 4"):
        ask(QueryCounts(tmp_path / "queries.json", LIMITS), "alice", 2)


def test_what_failed_counts_once_its_end_had_begun(tmp_path):
    counts = QueryCounts(tmp_path / "queries.json", LIMITS)
    for final, used in ((False, 0), (True, 3)):
        with pytest.raises(RunError, match="gone"):
            ask(counts, "alice", 3, fails="gone", final=final)
        assert read_used(tmp_path / "queries.json")["alice"]["small@0"] == used


def test_it_is_on_the_disk_while_it_runs(tmp_path):
    with QueryCounts(tmp_path / "queries.json", LIMITS).charged("alice", "small@0", 2):
        assert json.loads((tmp_path / "queries.json").read_text())["used"]["alice"] == {"small@0": 2}
    assert (tmp_path / "queries.json").stat().st_mode & 0o077 == 0


def test_many_at_once_are_no_more_than_one_after_the_other(tmp_path):
    counts = QueryCounts(tmp_path / "queries.json", LIMITS)

    def one(_):
        try:
            ask(counts, "bob", 1)
        except RunError:
            return 0
        return 1

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(one, range(40))) == 10


def test_limits_change_and_may_be_none(tmp_path):
    counts = QueryCounts(tmp_path / "queries.json", LIMITS)
    ask(counts, "alice", 4)
    counts.limit(Limits(None, {"alice": 6}))
    ask(counts, "alice", 2)
    ask(counts, "bob", 1000)
    assert read_used(tmp_path / "queries.json") == {"alice": {"small@0": 6}}
    ask(QueryCounts(), "bob", 1000)


def test_no_limit_writes_nothing(tmp_path):
    ask(QueryCounts(tmp_path / "queries.json"), "alice", 7)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_counted_is_refused(tmp_path):
    counts = QueryCounts(tmp_path / "state" / "queries.json", LIMITS)
    (tmp_path / "state" / "queries.json").unlink()
    (tmp_path / "state").rmdir()
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(RunError, match="the server cannot count this query, and refuses it"):
        ask(counts, "alice", 1)
    with pytest.raises(InputError, match="queries are counted there, or in the folder that STATE_DIRECTORY names"):
        QueryCounts(tmp_path / "state" / "queries.json", LIMITS)


@pytest.mark.parametrize("text", ("", "[]", '{"version": 1}', '{"version": 1, "used": {"a": {"m": -1}}}', '{"version": 2, "used": {}}'))
def test_a_damaged_file_is_no_budget(tmp_path, text):
    (tmp_path / "queries.json").write_text(text)
    with pytest.raises(InputError, match=r"not JSON|does not hold counted queries"):
        QueryCounts(tmp_path / "queries.json", LIMITS)


def test_where_the_counts_lie(tmp_path, monkeypatch):
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert state_file(tmp_path / "keys" / "deployment.yaml") == tmp_path / "keys" / "queries.json"
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    assert state_file(tmp_path / "keys" / "deployment.yaml") == tmp_path / "state" / "queries.json"


def test_a_session_is_refused_when_the_budget_is_spent(tmp_path, monkeypatch):
    connector, options, file = MemoryConnector(), Options(timeout=60.0), tmp_path / "queries.json"
    serve, called = inference.serve, MODEL.public.called
    with serving(connector, MODEL, options) as parties:
        parties[0].queries = QueryCounts(file, Limits(5))
        with ClientSession(connector, options) as session:
            assert_close(MODEL, images(2), session.infer(images(2))[0])
            assert read_used(file) == {"a client": {called: 2}}
            assert_close(MODEL, images(2), session.infer(images(2))[0])
            with pytest.raises(RunError, match=f"a client has used 4 of its 5 images of {called}, and 2 more are too many") as refused:
                session.infer(images(2))
            assert not refused.value.may_pass
        for whole, used in ((False, 4), (True, 5)):

            def fail(role, plan, note, given, whole=whole):
                if whole:
                    serve(role, plan, note, given)
                raise RunError("gone", "lost")

            monkeypatch.setattr(inference, "serve", fail)
            session = ClientSession(connector, options)
            if whole:  # the answer was there, so it counts
                assert_close(MODEL, images(1), session.infer(images(1))[0])
            else:
                with pytest.raises(RunError, match="gone"):
                    session.infer(images(1))
            session.close()
            assert read_used(file) == {"a client": {called: used}}


@pytest.mark.parametrize("after, used", [(-1, 0), (0, 1), (1, 1)])
def test_who_may_have_the_first_of_several_results_has_asked(after, used, tmp_path, monkeypatch):
    """after: steps from the last one before any result; what fails once the first result may have gone counts, whichever results are to come."""
    net = Builder(3, 9, 9)
    x = net.conv(net.relu(net.conv("input", 2)), 2)
    graph, weights = net.outputs(one=x, other=net.avgpool(x))
    model = ServedModel(PublicModel(graph, Precision(), None, CARD), weights)
    connector, options, file, serve = MemoryConnector(), Options(timeout=60.0), tmp_path / "queries.json", inference.serve
    last = model.public.plan(1).before_results + after
    assert last < len(model.public.plan(1).steps) - 1, "and another step is to come"

    def fail(role, plan, note, given):
        def noting(index, step, taken):
            note(index, step, taken)
            if index == last:
                raise RunError("gone", "lost")

        serve(role, plan, noting, given)

    with serving(connector, model, options) as parties:
        parties[0].queries = QueryCounts(file, Limits(5))
        session = ClientSession(connector, options)
        monkeypatch.setattr(inference, "serve", fail)
        with pytest.raises(RunError, match="gone"):
            session.infer(images(1))
        assert read_used(file) == {"a client": {model.public.called: used}}


def test_a_full_disk_refuses_queries_without_a_word_of_it_to_the_client_and_ends_no_server(tmp_path, monkeypatch):
    counts = QueryCounts(tmp_path / "queries.json", LIMITS)

    def full(path, *_):
        raise RunError(f"cannot write {path}: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(queries, "write_atomically", full)
        with pytest.raises(RunError, match=r"^the server cannot count this query, and refuses it: tell its owner$"):
            ask(counts, "alice", 1)
        with pytest.raises(InputError, match="queries are counted there"):
            counts.limit(Limits(3))
    ask(counts, "alice", 1)
    assert read_used(tmp_path / "queries.json") == {"alice": {"small@0": 1}}


def test_counts_that_cannot_be_read_are_told_before_the_server_listens(tmp_path, monkeypatch):
    generate(tmp_path)
    path, listens = tmp_path / "deployment.yaml", []
    path.write_text(path.read_text() + "queries:\n  default: 5\n")
    (tmp_path / "queries.json").write_text("damaged")
    monkeypatch.setattr(three_hosts, "ServerParty", lambda *_: listens.append(True))
    with pytest.raises(InputError, match="not JSON"):
        three_hosts.open_server(load(path), None)
    assert not listens
