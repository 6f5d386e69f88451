"""What every role has at hand, where another party does not keep to the order of messages."""

import numpy as np
import pytest

from tests.protocol.harness import Trio
from threepc.errors import RunError
from threepc.kernels.gate import Cut
from threepc.protocol.late_relu import LateRelu
from threepc.protocol.product import Product
from threepc.protocol.relu import Relu

SHAPE, CUT = (1, 1, 8, 8), Cut(48, 16, 32)


PRODUCT, RELU = Product(3, (SHAPE,), SHAPE, CUT), Relu(3, SHAPE, CUT, 48, 0, 30, to_client=True)
LATE = LateRelu(3, SHAPE, CUT, 48, 0, 30)
FIRST = RELU.opening.message_bytes, RELU.drelu.leaf_bytes


@pytest.mark.parametrize(
    "protocol, messages",
    [
        (PRODUCT, [(384, 256)]),
        (RELU, [FIRST]),
        (LATE, [FIRST, (LATE.drelu.group_bytes, LATE.drelu.bit_bytes), (LATE.late_lift.choice_bytes,)]),
    ],
    ids=["product", "told", "late"],
)
def test_a_server_that_does_not_wait_for_what_the_client_prepares_ends_the_run(protocol, messages):
    """What the client's answer takes is not there, which is no error of its own."""
    trio = Trio()
    for sizes in messages:
        trio.online[1].send(3, [np.zeros(size, np.uint8) for size in sizes], "online")
    with pytest.raises(RunError, match=r"the server sent its message of op [34] before it had the client's"):
        protocol.infer(trio.client)
