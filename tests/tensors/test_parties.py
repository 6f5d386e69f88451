"""Jobs run by three parties: who is shown what, what a policy forbids, and what is refused before anything is sent."""

from unittest.mock import MagicMock

import numpy as np
import pytest

from tests.party.parties import serving
from threepc import tensors
from threepc.errors import InputError, RunError
from threepc.model.served import ServedModel
from threepc.party import three_hosts
from threepc.party.client import ClientSession
from threepc.party.connector import MemoryConnector
from threepc.party.deployment import load
from threepc.party.keygen import generate
from threepc.party.memory import largest_batch
from threepc.party.one_host import ThreeThreads
from threepc.party.session import Options, requested
from threepc.tensors.parties import ServerPart, willing
from threepc.tensors.program import Program
from threepc.transport.framing import Control

EVERYTHING = {"product": "client", "sum": "server", "best": "client"}


def job(p):
    x, w = p.input("x", (3, 4), "client"), p.input("w", (4, 2), "server")
    product = x @ w + p.input("bias", (3, 2), "bank")
    p.reveal(product, "client", "product")
    p.reveal(product.sum(0), "server", "sum")
    p.reveal(product.argmax(1), "client", "best")


PROGRAM = tensors.trace(job)


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((3, 4)), rng.standard_normal((4, 2)), rng.standard_normal((3, 2))


def test_each_is_shown_its_own_and_nothing_else():
    with tensors.local(PROGRAM, EVERYTHING) as parties:
        for seed in (1, 2, 3):
            x, w, bias = arrays(seed)
            results = parties.run({"x": x}, {"w": w}, {"bias": bias})
            product = x @ w + bias
            assert results.client.keys() == {"product", "best"} and results.server.keys() == {"sum"}
            assert np.abs(results.client["product"] - product).max() < 1e-3 and np.abs(results.server["sum"] - product.sum(0)).max() < 1e-3
            assert np.array_equal(results.client["best"], product.argmax(1)) and results.client["best"].dtype == np.int64


def test_cost_is_the_declared_one():
    with tensors.local(PROGRAM, EVERYTHING) as parties:
        x, w, bias = arrays()
        links = parties.run({"x": x}, {"w": w}, {"bias": bias}).record.links
    declared, measured = PROGRAM.public.plan(1).cost, {phase: {} for phase in ("offline", "online")}
    for link, phases in links.items():
        for phase, (size, _) in phases.items():
            if size and phase in measured:
                measured[phase][link] = size
    assert measured == {"offline": declared.offline, "online": declared.online}


@pytest.mark.parametrize(
    "policy, message",
    [
        ({"product": "client", "best": "client"}, "policy: nothing called 'sum' may be revealed, and the job reveals it to the server"),
        (EVERYTHING | {"sum": "client"}, "policy: 'sum' may be revealed to the client alone, and the job reveals it to the server"),
        ({}, "policy: nothing called 'product' may be revealed, and the job reveals it to the client"),
    ],
)
def test_a_forbidden_reveal(policy, message):
    with pytest.raises(InputError, match=message), tensors.local(PROGRAM, policy):
        pass


@pytest.mark.parametrize("difference", ({"sum": "client"}, {"other": "client"}))
def test_each_party_asks_its_own_policy(difference):
    """The server's is no use where client or provider think otherwise: no session begins."""
    side = ServerPart(PROGRAM, dict, lambda _: None)
    policy = {name: to for name, to in (EVERYTHING | difference).items() if name in difference or name != "sum"}
    refused = pytest.raises((InputError, RunError), match="may be revealed")
    with refused, ThreeThreads(ServedModel(PROGRAM.public, {}, side), accept=willing(PROGRAM, policy)):
        pass


def test_another_job_than_the_party_knows():
    other = tensors.trace(lambda p: p.reveal(p.input("x", (3,), "client") * 2, "client", "product"))
    side = ServerPart(PROGRAM, dict, lambda _: None)
    refused = pytest.raises(RunError, match="runs another job than <lambda> as it is here: their fingerprints differ")
    with refused, ThreeThreads(ServedModel(PROGRAM.public, {}, side), accept=willing(other, EVERYTHING)):
        pass


def test_a_server_without_its_part():
    with pytest.raises(InputError, match="the server has no part in this job"):
        ServedModel(PROGRAM.public, {})


@pytest.mark.parametrize(
    "role, name, value, message",
    [
        ("client", "x", np.zeros((3, 5)), r"x: must have the shape \(3, 4\), not \(3, 5\)"),
        ("client", "x", np.full((3, 4), np.nan), "x: not a finite number"),
        ("client", "x", np.full((3, 4), 512.01), "x: a number is outside of the limit 512 that the job states for it$"),
        ("client", "x", np.full((3, 4), -np.inf), "x: a number is outside of the limit 512 that the job states for it$"),
        ("server", "w", np.full((4, 2), -513.0), "w: a number is outside of the limit 512 that the job states for it$"),
        ("owners", "bias", np.full((3, 2), -513.0), "bias: a number is outside of the limit 512 that the job states for it$"),
        ("client", "x", [["a"] * 4] * 3, "x: must be an array of real numbers"),
        ("client", "y", np.zeros(3), "'y' is no input of the client's: it brings x, bias"),
        ("client", "x", None, "'x' is missing: it brings x, bias"),
        ("server", "w", np.zeros((4, 4)), r"w: must have the shape \(4, 2\), not \(4, 4\)"),
        ("server", "w", None, "'w' is missing: it brings w, bias"),
        ("owners", "bias", np.zeros(3), r"bias: must have the shape \(3, 2\), not \(3,\)"),
        ("owners", "tax", np.zeros(3), "'tax' is no input of job: it has x, w, bias"),
    ],
)
def test_bad_inputs_are_refused_and_the_session_goes_on(role, name, value, message):
    x, w, bias = arrays()
    given = {"client": {"x": x}, "server": {"w": w}, "owners": {"bias": bias}}
    spoilt = {key: dict(values) for key, values in given.items()}
    if value is None:
        del spoilt[role][name]
    else:
        spoilt[role][name] = value
    with tensors.local(PROGRAM, EVERYTHING) as parties:
        with pytest.raises(InputError, match=message):
            parties.run(**spoilt)
        assert np.abs(parties.run(**given).client["product"] - (x @ w + bias)).max() < 1e-3


def test_a_share_that_is_none():
    with pytest.raises(InputError, match="bias: must be a share of bank's, not an ndarray"):
        ServerPart(PROGRAM, dict, lambda _: None).words({"w": arrays()[1], "bias": arrays()[2]})
    with pytest.raises(InputError, match="bias: a share for the server is a message of 512 bytes"):
        ServerPart(PROGRAM, dict, lambda _: None).words({"w": arrays()[1], "bias": b"short"})


def failing(error):
    raise error


NUMBER = "1.1259e+15"
WRONG_PARTS = {
    "a number that does not fit": (
        lambda: {"w": np.full((4, 2), 2.0**50), "bias": bytes(512)},
        lambda _: None,
        "inputs do not suit the job",
    ),
    "the program's own error": (lambda: failing(RunError(NUMBER)), lambda _: None, "inputs do not suit the job"),
    "that of what is shown": (
        lambda: {"w": np.zeros((4, 2)), "bias": bytes(512)},
        lambda _: failing(InputError(NUMBER)),
        "could not take what it was shown",
    ),
}


@pytest.mark.parametrize("name", WRONG_PARTS)
def test_what_the_server_lacks_tells_nobody_a_number(name, caplog):
    """The server's text may quote one of its own: the client hears none of it, and a log none but where it stands."""
    inputs, shown, message = WRONG_PARTS[name]
    opened = ThreeThreads(ServedModel(PROGRAM.public, {}, ServerPart(PROGRAM, inputs, shown)), accept=willing(PROGRAM, EVERYTHING))
    with opened as parties:
        try:
            _, record = parties.infer_words(np.zeros((1, 18, 1, 1), np.uint64))
            told = record.incomplete
        except RunError as error:
            told = str(error)
    assert message in told and NUMBER not in told and NUMBER not in caplog.text


@pytest.mark.parametrize("whose", ("client", "server", "provider"))
def test_nobody_runs_a_job_of_both_for_a_batch(whose):
    """The server has its inputs once: for a second run in the same batch its kernels would read what lies behind them in its memory."""
    with pytest.raises(InputError, match="runs once at a time, not 2 times at once"):
        requested(PROGRAM.public, Control("infer", {"attempt": 0, "batch": 2}), Options(), whose)
    assert requested(PROGRAM.public, Control("infer", {"attempt": 0, "batch": 1}), Options(), whose)[1].batch == 1
    assert largest_batch(PROGRAM.public, Options().memory) == 1


@pytest.mark.parametrize("words", (np.zeros((2, 4, 2), np.uint64), np.zeros((1, 1, 4, 2), np.uint32), np.zeros((1, 1, 4, 1), np.uint64)))
def test_words_that_are_not_the_inputs_reach_no_kernel(words):
    side = ServerPart(PROGRAM, dict, lambda _: None)
    side.given = lambda: dict.fromkeys(("w of server, at the server", "bias of bank, at the server"), words)
    opened = ThreeThreads(ServedModel(PROGRAM.public, {}, side), accept=willing(PROGRAM, EVERYTHING))
    with opened as parties, pytest.raises(RunError, match=r"the server's inputs do not suit the job$"):
        parties.infer_words(np.zeros((1, 18, 1, 1), np.uint64))


def test_a_job_of_one_side_alone():
    """The client brings nothing and is shown nothing; then the other way round."""
    with tensors.local(tensors.trace(lambda p: p.reveal(p.input("w", (2,), "server") * 0.5, "server", "half")), {"half": "server"}) as one:
        assert np.allclose(one.run(server={"w": [1.0, -3.0]}).server["half"], [0.5, -1.5], atol=1e-4)
    with tensors.local(tensors.trace(lambda p: p.reveal(p.input("x", (), "client"), "client", "same")), {"same": "client"}) as one:
        assert one.run({"x": 0.25}).client["same"] == 0.25


@pytest.mark.parametrize("begin", (tensors.serve, tensors.provide, tensors.Asking))
def test_a_party_of_a_deployment_asks_its_policy_before_it_reads_its_keys(begin, tmp_path):
    with pytest.raises(InputError, match="policy: nothing called 'sum' may be revealed"), begin(tmp_path, PROGRAM, {"product": "client"}):
        pass


@pytest.mark.parametrize("begin, opens", ((tensors.provide, "open_provider"), (tensors.Asking, "open_client")))
def test_a_party_of_a_deployment_accepts_its_own_job_and_no_other(begin, opens, tmp_path, monkeypatch):
    asked, other = {}, tensors.trace(lambda p: p.reveal(p.input("x", (3,), "client") * 2, "client", "product"))
    monkeypatch.setattr(three_hosts, opens, lambda *_, **options: (asked.update(options), MagicMock())[1])
    with begin(generate(tmp_path / "keys")[0], PROGRAM, EVERYTHING):
        pass
    asked["accept"](PROGRAM.public)
    with pytest.raises(RunError, match="runs another job than job as it is here"):
        asked["accept"](other.public)
    with pytest.raises(InputError, match="policy: nothing called 'tax' may be revealed"):
        asked["accept"](tensors.trace(lambda p: p.reveal(p.input("x", (3,), "client") * 2, "client", "tax")).public)
    assert not asked.get("cache"), "a job has no weights that a client could keep"


def test_a_log_says_which_input_of_the_servers_does_not_suit_the_job_and_no_number(monkeypatch, caplog):
    monkeypatch.setattr(Program, "encoded", lambda *_: failing(InputError(f"w: {NUMBER} is too large")))
    with pytest.raises(RunError, match=r"^the server's inputs do not suit the job$"):
        ServerPart(PROGRAM, lambda: {"w": np.zeros((4, 2)), "bias": bytes(512)}, lambda _: None).given()
    assert "do not suit it: w" in caplog.text and NUMBER not in caplog.text


FOR_THE_SERVER = "describes a job that shows output sum to the server itself: only a party with a policy runs it"


def served():
    return ServedModel(PROGRAM.public, {}, ServerPart(PROGRAM, dict, lambda _: None))


def test_a_client_without_a_policy_refuses_what_shows_the_server_anything():
    """Otherwise a server could describe a network whose output is the client's image, and be shown it."""
    with pytest.raises(RunError, match=FOR_THE_SERVER), ThreeThreads(served(), timeout=20.0):
        pass


def test_so_does_a_provider_whatever_the_client_accepts():
    connector = MemoryConnector()
    with serving(connector, served(), Options(timeout=20.0)), pytest.raises(RunError, match=FOR_THE_SERVER):
        ClientSession(connector, Options(timeout=20.0, accept=lambda _: None))


def test_so_does_a_client_whatever_the_provider_accepts():
    connector = MemoryConnector()
    with serving(connector, served(), Options(timeout=20.0, accept=lambda _: None)), pytest.raises(RunError, match=FOR_THE_SERVER):
        ClientSession(connector, Options(timeout=20.0))


def test_nor_does_a_party_of_a_deployment_without_a_policy(tmp_path):
    deployment = load(generate(tmp_path / "keys")[0])
    with pytest.raises(RunError, match="only a party with a policy runs it"):
        three_hosts._agree(deployment, PROGRAM.public)
