"""What a traced job is, to all parties alike, and what is refused before there is a program."""

import numpy as np
import pytest

from threepc import tensors
from threepc.errors import InputError
from threepc.graph.ir import Graph
from threepc.model.served import PublicModel
from threepc.protocol.steps import ReluStep
from threepc.tensors.program import check_policy


def job(p, x="x", owner="client", factor=2.0, to="client"):
    p.reveal(p.input(x, (3,), owner) * factor, to, "double")


def test_equal_jobs_have_equal_fingerprints():
    one, other = tensors.trace(job), tensors.trace(lambda p: job(p), name="job")
    assert one.fingerprint == other.fingerprint
    assert PublicModel.from_plain(one.public.to_plain()).fingerprint == one.fingerprint


@pytest.mark.parametrize("change", ({"x": "y"}, {"owner": "server"}, {"owner": "bank"}, {"factor": 3.0}, {"to": "server"}))
def test_the_fingerprint_covers_names_owners_numbers_and_receivers(change):
    assert tensors.trace(lambda p: job(p, **change)).fingerprint != tensors.trace(job).fingerprint


@pytest.mark.parametrize("change", ({"ring": 48}, {"fraction": 12}))
def test_the_fingerprint_covers_the_precision(change):
    assert tensors.trace(job, **change).fingerprint != tensors.trace(job).fingerprint


def test_what_is_public_of_a_job_survives_the_way_to_another_party():
    program = tensors.trace(lambda p: (job(p), p.reveal(p.input("w", (2, 2), "server").sum(), "server", "sum")))
    model = PublicModel.from_plain(program.public.to_plain())
    check_policy(model, {"double": "client", "sum": "server"})
    with pytest.raises(InputError, match="policy: 'sum' may be revealed to the client alone, and the job reveals it to the server"):
        check_policy(model, {"double": "client", "sum": "client"})
    assert Graph.from_json(model.graph.to_json()) == program.public.graph


def test_what_nobody_is_shown_is_not_computed():
    def wasteful(p):
        x = p.input("x", (3,), "client")
        x.relu()
        p.reveal(x, "client", "x")

    assert not [step for step in tensors.trace(wasteful).public.plan(1).steps if isinstance(step, ReluStep)]


@pytest.mark.parametrize(
    "operation, messages",
    [
        (lambda x: x + 1, 2),
        (lambda x: 0.5 * x, 2),
        (lambda x: (x @ np.eye(3)) @ np.ones((3, 2)), 2),
        (lambda x: (x @ np.full((3, 3), 0.5)) @ np.full((3, 2), 0.5), 4),
        (lambda x: x * x, 4),
        (lambda x: x @ x.T, 4),
        (lambda x: x > 0, 6),
        (lambda x: (0.5 * x).relu(), 6),
        (lambda x: x.sum() / 3, 2),
    ],
)
def test_messages_of_operations(operation, messages):
    """One for the input and one for what is revealed, and those that the how-to page states: 2 a product or truncation, 4 a decision."""
    program = tensors.trace(lambda p: p.reveal(operation(p.input("x", (3, 3), "client")), "client", "z"))
    assert program.public.plan(1).cost.messages == messages


def test_inputs_and_results_of_the_server_take_no_message_online():
    program = tensors.trace(lambda p: p.reveal(p.input("w", (3,), "server") * 2 + 1, "server", "z"))
    cost = program.public.plan(1).cost
    assert cost.messages == 1 and cost.online == {"client->server": 512}, "the client's one number, which stands for nothing"


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"ring": 33}, "ring: must be one of 64, 48, 40, 32, 28, 24, not 33"),
        ({"fraction": 0}, "precision of 'fraction': fractional bits must be 1 to 16, not 0"),
        ({"fraction": 17}, "precision of 'fraction': fractional bits must be 1 to 16, not 17"),
        ({"fraction": 1.5}, "precision of 'fraction': fractional bits must be 1 to 16, not 1.5"),
        ({"ring": 32, "fraction": 14}, "fraction: 14 fractional bits leave a ring of 32 bits no room for products: at most 13"),
    ],
)
def test_a_precision_out_of_range(settings, message):
    with pytest.raises(InputError, match=message):
        tensors.trace(job, **settings)


def twice(p):
    p.input("x", (3,), "client")
    p.input("x", (2,), "server")


def revealed_twice(p):
    x = p.input("x", (3,), "client")
    p.reveal(x, "client", "x")
    p.reveal(x, "server", "x")


MALFORMED = {
    "nothing revealed": (lambda p: p.input("x", (3,), "client"), "the job reveals nothing"),
    "two inputs of one name": (twice, "input 'x': declared twice"),
    "two results of one name": (revealed_twice, "reveal 'x': revealed twice"),
    "a receiver": (lambda p: job(p, to="bank"), "reveal 'double': to must be client or server, not 'bank'"),
    "labels to the server": (
        lambda p: p.reveal(p.input("x", (3,), "client").argmax(), "server", "best"),
        "reveal 'best': an argmax can be revealed to the client alone",
    ),
    "no tensor": (lambda p: p.reveal(3, "client", "x"), "reveal 'x': must be a tensor of this job"),
    "a name": (lambda p: p.reveal(p.input("x", (3,), "client"), "client", "a b"), "reveal 'a b': a name has 1 to 64 letters, digits"),
    "an input's name": (lambda p: p.input("", (3,), "client"), "input '': a name has 1 to 64 printable ASCII characters"),
    "an owner's name": (lambda p: p.input("x", (3,), "b\n"), r"owner 'b\\n': a name has 1 to 64 printable ASCII characters"),
    "a shape": (lambda p: p.input("x", (0, 3), "client"), r"an array has up to 3 axes of at least one number, not the shape \(0, 3\)"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_jobs(name):
    given, message = MALFORMED[name]
    with pytest.raises(InputError, match=message):
        tensors.trace(given)


def test_tensors_of_two_jobs_are_not_mixed():
    kept = []
    tensors.trace(lambda p: (kept.append(p.input("x", (3,), "client")), p.reveal(kept[0], "client", "x")))
    with pytest.raises(InputError, match="the two tensors belong to two jobs: a job takes only its own"):
        tensors.trace(lambda p: p.reveal(p.input("x", (3,), "client") + kept[0], "client", "sum"))
    with pytest.raises(InputError, match="reveal 'x': must be a tensor of this job"):
        tensors.trace(lambda p: p.reveal(kept[0], "client", "x"))
