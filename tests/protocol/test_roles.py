"""What every role has at hand, where another party does not keep to the order of messages."""

import numpy as np
import pytest

from tests.protocol.harness import Trio
from threepc.errors import RunError
from threepc.kernels.gate import Cut
from threepc.protocol.product import Product
from threepc.protocol.relu import Relu

SHAPE, CUT = (1, 1, 8, 8), Cut(48, 16, 32)


PRODUCT, RELU = Product(3, (SHAPE,), SHAPE, CUT), Relu(3, SHAPE, CUT, 48, 0, 30, to_client=True)


@pytest.mark.parametrize(
    "protocol, sizes", [(PRODUCT, (384, 256)), (RELU, (RELU.opening.message_bytes, RELU.drelu.leaf_bytes))], ids=["product", "told"]
)
def test_a_server_that_does_not_wait_for_what_the_client_prepares_ends_the_run(protocol, sizes):
    """What the client's answer takes is not there, which is no error of its own."""
    trio = Trio()
    trio.online[1].send(3, [np.zeros(size, np.uint8) for size in sizes], "online")
    with pytest.raises(RunError, match="the server sent its message of op 3 before it had the client's"):
        protocol.infer(trio.client)
