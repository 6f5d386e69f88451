"""What a user may choose by name: rings, what is revealed, transports, simulated networks. Nothing is loaded for it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import NamedTuple

from threepc.errors import InputError

RINGS = (64, 48, 40, 32, 28, 24)
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

PARTIES = ("client", "server", "provider")


class HostRates(NamedTuple):
    """What a party's host sends and receives in all, bits per second; its peers share it."""

    up: float = math.inf
    down: float = math.inf


LINKS_FORM = "PARTY=RATE or PARTY=UP/DOWN, such as server=1G,client=20M/100M; PARTY is client, server, provider or each, bits a second with k, M or G"
_RATE = r"(\d{1,6}(?:\.\d{1,6})?)([kMG])"
_UNITS = {"k": 1e3, "M": 1e6, "G": 1e9}


def read_links(text: str) -> dict[str, HostRates]:
    """The rates of the parties' hosts from a text like "server=1G,client=20M/100M"; of a party that is not named none is limited.

    Raises InputError for another text, for a rate that is not positive and for a party that is named twice.
    """
    links: dict[str, HostRates] = {}
    for part in text.split(",") if text else ():
        found = re.fullmatch(rf"({'|'.join(PARTIES)}|each)={_RATE}(?:/{_RATE})?", part, re.ASCII)
        if found is None:
            raise InputError(f"links: {part[:80]!r} is not {LINKS_FORM}")
        up = float(found[2]) * _UNITS[found[3]]
        down = float(found[4]) * _UNITS[found[5]] if found[4] else up
        if not (up and down):
            raise InputError(f"links: {part}: a rate must be more than 0")
        for party in PARTIES if found[1] == "each" else (found[1],):
            if party in links:
                raise InputError(f"links: the rate of the {party} is said twice")
            links[party] = HostRates(up, down)
    return links


AUTO, AUTO_ONLINE = "auto", "auto-online"
RELU_MESSAGES = ("4", "2", "6", AUTO, AUTO_ONLINE)
"""Online messages of a ReLU: four everywhere, two or six where there can be so many, or chosen by layer from what is said of the links: so that the
whole inference ends early, or its online phase alone, where the rest is done ahead."""

OUT_OF_RANGE = ("refuse", "warn")
"""What happens to inputs, and to values on their way, that are larger than what the model's scales are made for."""

LOG_FORMATS = ("text", "json")
"""How a party that serves writes its log."""
