"""Two channels over the in-memory connection, and the one message that most tests send."""

import numpy as np

from threepc.transport.channel import Channel
from threepc.transport.memory import pair
from threepc.transport.meter import Meter

LAYOUT = [(np.uint64, (2, 3)), (np.uint8, (5,))]
PARTS = [np.arange(6, dtype=np.uint64).reshape(2, 3), np.arange(5, dtype=np.uint8)]
SESSION = b"session1"


def channels(**settings) -> tuple[Channel, Channel]:
    one, two = pair()
    return (
        Channel(one, ("client", "server"), SESSION, Meter(), timeout=60, **settings),
        Channel(two, ("server", "client"), SESSION, Meter(), timeout=60, **settings),
    )
