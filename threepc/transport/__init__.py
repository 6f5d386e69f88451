"""Who hears it: channels of typed, counted messages over ZeroMQ or between threads."""

from .channel import Channel
from .connection import Connection, NoAnswer
from .framing import PROTOCOL_VERSION, Control
from .keys import KeyPair
from .memory import pair
from .meter import PHASES, Count, Meter
from .shaping import NETWORKS, Shaper, shaper
from .zmq_dealer import connect
from .zmq_listener import Listener

__all__ = [
    "NETWORKS",
    "PHASES",
    "PROTOCOL_VERSION",
    "Channel",
    "Connection",
    "Control",
    "Count",
    "KeyPair",
    "Listener",
    "Meter",
    "NoAnswer",
    "Shaper",
    "connect",
    "pair",
    "shaper",
]
