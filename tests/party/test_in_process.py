"""Of two roles that fail together, the error of the one that failed first is raised: the other's only follows from it."""

import numpy as np
import pytest

from threepc.errors import RunError
from threepc.party.in_process import ThreeRoles


def fail(_):
    raise RunError("first")


def wait(role):
    role.receive_online(0, 1)


@pytest.mark.parametrize(("serve", "infer"), [(fail, wait), (wait, fail)], ids=["server", "client"])
def test_what_went_wrong_first_is_raised(serve, infer):
    with ThreeRoles() as trio, pytest.raises(RunError, match=r"^first$"):
        trio.together(serve, infer)


def test_both_results_come_back():
    def infer(client):
        client.send_online(0, np.ones(1, np.uint8))
        return "inferred"

    with ThreeRoles() as trio:
        (received,), inferred = trio.together(lambda server: server.receive_online(0, 1), infer)
    assert received.tolist() == [1]
    assert inferred == "inferred"
