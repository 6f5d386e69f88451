"""What a user may choose by name: rings, what is revealed, transports, simulated networks. Nothing is loaded for it."""

from __future__ import annotations

from dataclasses import dataclass

RINGS = (64, 48, 40, 32)
"""Bits of a ring element."""

LOGITS, LABEL = "logits", "label"
REVEALS = (LOGITS, LABEL)
"""What the client may learn: the results, or the index of the largest alone."""

REVEAL_FORM = r"(\w[\w.-]*=)?(logits|label)(,(\w[\w.-]*=)?(logits|label))*"
"""How this is said, as a pattern: one word for all outputs of a network, one for each, or NAME=WORD for some."""

TRANSPORTS = ("ipc", "tcp", "memory")
"""What three parties on one machine talk through; in memory they are threads of one process."""


@dataclass(frozen=True)
class LinkPreset:
    """Rate of each link direction in bits per second, and the time from one party to another in seconds."""

    rate_bits_per_s: float
    one_way_delay_s: float


NETWORKS: dict[str, LinkPreset | None] = {
    "none": None,
    "lan": LinkPreset(1e9, 0.1e-3),
    "lan10": LinkPreset(10e9, 0.1e-3),
    "wan": LinkPreset(100e6, 20e-3),
    "wan352": LinkPreset(352e6, 20e-3),
}
"""Simulated networks: gigabit and 10-gigabit Ethernet with a round trip of 0.2 ms, 100 and 352 Mbit/s with one of 40 ms."""

OUT_OF_RANGE = ("refuse", "warn")
"""What happens to inputs, and to values on their way, that are larger than what the model's scales are made for."""

LOG_FORMATS = ("text", "json")
"""How a party that serves writes its log."""
